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

// One entry of `lanes` neighbouring lanes at once. For RF_RUN lane number `lane + i` runs `count`
// tasks from `first + i * count` on; for RF_PREFETCH it asks for the weights of task `first + i *
// count`.
enum rf_kind { RF_PREFETCH, RF_WAIT, RF_RUN, RF_SIGNAL };
struct rf_entry {
  int kind, lane, lanes;
  int what;   // an rOperator, or a counter
  int first;  // a task, or for RF_WAIT the number of signals that make the counter full
  int count;
};

struct rf_launch {
  int begin, end;  // its entries
  int lanes;
};

struct rf_view {
  char* const* spaces;
  const rf_operand* operands;
};

template <class T>
RF_DEVICE T* rf_output(const rf_view& p, int slot) {
  const rf_operand operand = p.operands[slot];
  return reinterpret_cast<T*>(p.spaces[operand.space] + (rf_size)operand.offset * 16);
}
template <class T>
RF_DEVICE const T* rf_input(const rf_view& p, int slot) {
  return rf_output<T>(p, slot);
}
