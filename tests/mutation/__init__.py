"""Do the random weights of the zoo show mistakes? Each network is changed in small ways, and the
change has to be seen in its outputs.
"""
