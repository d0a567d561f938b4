"""Every kind of body in the emulator, with sizes that fill no tile, under many orders."""
