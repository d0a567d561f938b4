// What a wait that was given up looks like in words.
static const char* rf_name_of(int roperator) {
  return roperator < 0 ? "no rOperator" : rf_roperator_names[roperator];
}

static void rf_describe(char* text, rf_size size, const rf_report& report) {
  snprintf(text, size,
           "gave up a wait in launch %d: vEU %d (block %d, entry %d), about to run %s, waited for "
           "event %d behind %s: counter %d has %u of %u signals",
           report.launch, report.lane, report.block, report.entry, rf_name_of(report.next),
           report.event, rf_name_of(report.source), report.counter, report.seen, report.wanted);
}
