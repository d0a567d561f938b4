// How a program is written down: operands, rOperators, and the entries of the lanes. All of it is
// data; the only code that depends on the model is the bodies and the switch that picks one.
struct rf_operand {
  int space;        // 0 workspace, 1 weights, then the inputs and the outputs
  unsigned offset;  // in units of 16 bytes
};

struct rf_roperator {
  int body;
  int first_operand;
};

// One entry of `lanes` neighbouring lanes at once. Lane number `lane + i` is concerned with the
// units from `first + i / per * step` on, `count` of them: rTasks of rOperator `what` for
// RF_PREFETCH and RF_RUN, units of event `what` for RF_WAIT and RF_SIGNAL.
enum rf_kind { RF_PREFETCH, RF_WAIT, RF_RUN, RF_SIGNAL };
struct rf_entry {
  int kind, lane, lanes, per;
  int what, first, count, step;
};

// `size` units in groups of `group`, a counter for each group.
struct rf_event {
  int counter, size, group;
};

struct rf_launch {
  int begin, end;  // its entries
  int lanes;
  int kernel;
};

struct rf_view {
  char* const* spaces;
  const rf_operand* operands;
};

template <class T>
RF_DEVICE T* rf_output(const rf_view& p, int slot) {
  const rf_operand operand = p.operands[slot];
  char* const at = p.spaces[operand.space] + (rf_size)operand.offset * 16;
  RF_GLOBAL(at);
  return reinterpret_cast<T*>(RF_ALIGNED(at));
}
template <class T>
RF_DEVICE const T* rf_input(const rf_view& p, int slot) {
  return rf_output<T>(p, slot);
}
