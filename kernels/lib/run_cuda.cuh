// The same C interface on a GPU, for programs that nvcc links. Nothing is allocated or copied
// inside rf_run, so that a stream may capture it. One run of a session at a time: on another stream
// it waits for the one before. What is captured is not watched.
struct rf_session {
  rf_control* control;
  char* weights;
  char* workspace;
  cudaEvent_t done;  // the last run, on whichever stream
  int blocks[RF_LAUNCHES];
  bool dead;  // the device takes no more calls of this process
  char error[512];
};

static char rf_create_error[512];

static bool rf_failed(char* text, rf_size size, const char* what, cudaError_t code) {
  if (code == cudaSuccess) return false;
  snprintf(text, size, "%s: %s", what, cudaGetErrorString(code));
  return true;
}
#define RF_TRY(call) \
  if (rf_failed(rf_create_error, sizeof rf_create_error, #call, (call))) return false

static bool rf_prepare(rf_session* session, const char* weights_path) {
  int device = 0, sms = 0, cooperative = 0;
  RF_TRY(cudaGetDevice(&device));
  RF_TRY(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  RF_TRY(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device));
  for (int i = 0; i < RF_LAUNCHES; ++i) {
    const rf_start start = rf_starts[i];
    int resident = 0;
    RF_TRY(cudaFuncSetAttribute(start.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                RF_ARENA_BYTES));
    RF_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, start.kernel, RF_THREADS,
                                                         (rf_size)start.arena_bytes));
    if (!cooperative || resident < 1) {
      snprintf(rf_create_error, sizeof rf_create_error, "%s",
               cooperative ? "not one block of this program fits on an SM of this device"
                           : "this device takes no cooperative launches");
      return false;
    }
    // fewer blocks than lanes is fine: a block then runs several lanes
    const int most = sms * resident;
    session->blocks[i] = most < start.lanes ? most : start.lanes;
  }
  RF_TRY(cudaMalloc((void**)&session->control, RF_CONTROL_WORDS * 4));
  RF_TRY(cudaMemset(session->control, 0, RF_CONTROL_WORDS * 4));
  RF_TRY(cudaMalloc((void**)&session->workspace, RF_WORKSPACE_BYTES + 16));
  RF_TRY(cudaMalloc((void**)&session->weights, RF_WEIGHT_BYTES + 16));
  RF_TRY(cudaEventCreateWithFlags(&session->done, cudaEventDisableTiming));
  RF_TRY(cudaDeviceSynchronize());  // a stream of the caller's need not wait for the zeros
  if (!RF_WEIGHT_BYTES) return true;
  const rf_file file = rf_open_file(weights_path);
  const char* error = "cannot be read";
  const long long start = file.data ? rf_weights_start(file.data, file.bytes, &error) : -1;
  if (start < 0) {
    snprintf(rf_create_error, sizeof rf_create_error, "%s: %s", weights_path, error);
    rf_close_file(file);
    return false;
  }
  const cudaError_t copied =
      cudaMemcpy(session->weights, file.data + start, RF_WEIGHT_BYTES, cudaMemcpyHostToDevice);
  rf_close_file(file);
  return !rf_failed(rf_create_error, sizeof rf_create_error, "copying the weights", copied);
}

extern "C" void rf_destroy(void* handle) {
  rf_session* session = static_cast<rf_session*>(handle);
  if (!session) return;
  if (session->done) cudaEventDestroy(session->done);
  cudaFree(session->control);
  cudaFree(session->workspace);
  cudaFree(session->weights);
  free(session);
}

extern "C" void* rf_create(const char* weights_path, int threads) {
  (void)threads;
  rf_session* session = static_cast<rf_session*>(calloc(1, sizeof(rf_session)));
  if (session && rf_prepare(session, weights_path)) return session;
  rf_destroy(session);
  return nullptr;
}

static cudaError_t rf_launch_all(rf_session* session, const rf_spaces& spaces, cudaStream_t queue) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaError_t code = cudaStreamIsCapturing(queue, &capture);
  const bool is_run = capture == cudaStreamCaptureStatusNone;
  if (code == cudaSuccess && is_run) code = cudaStreamWaitEvent(queue, session->done, 0);
  for (int launch = 0; code == cudaSuccess && launch < RF_LAUNCHES; ++launch) {
    void* arguments[] = {const_cast<rf_spaces*>(&spaces), &session->control, &launch};
    code = cudaLaunchCooperativeKernel(rf_starts[launch].kernel,
                                       dim3((unsigned)session->blocks[launch]), dim3(RF_THREADS),
                                       arguments, (size_t)rf_starts[launch].arena_bytes, queue);
  }
  if (code == cudaSuccess && is_run) code = cudaEventRecord(session->done, queue);
  return code;
}

// Takes down what went wrong, and readies the session for the next run if the device takes one.
static int rf_lost(rf_session* session, const char* what, cudaError_t code) {
  cudaGetLastError();
  size_t unused = 0, all = 0;
  session->dead = cudaMemGetInfo(&unused, &all) != cudaSuccess;
  snprintf(session->error, sizeof session->error, "%s: %s%s", what, cudaGetErrorString(code),
           session->dead ? "; the session is dead, and so is the device for this process" : "");
  return 1;
}

// Inputs, outputs and workspace are device addresses; the run is asynchronous on the stream, and
// rf_check says how it went.
extern "C" int rf_run(void* handle, const void* const* inputs, void* const* outputs,
                      void* workspace, void* stream) {
  rf_session* session = static_cast<rf_session*>(handle);
  if (session->dead) return 1;
  rf_spaces spaces;
  spaces.base[0] = workspace ? static_cast<char*>(workspace) : session->workspace;
  spaces.base[1] = session->weights;
  for (int i = 0; i < RF_INPUTS; ++i) spaces.base[2 + i] = (char*)const_cast<void*>(inputs[i]);
  for (int i = 0; i < RF_OUTPUTS; ++i)
    spaces.base[2 + RF_INPUTS + i] = static_cast<char*>(outputs[i]);
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  const cudaError_t code = rf_launch_all(session, spaces, queue);
  if (code == cudaSuccess) return 0;
  // launches of this run that did start have counted: the next run begins with a clean block
  cudaMemsetAsync(session->control, 0, RF_CONTROL_WORDS * 4, queue);
  cudaEventRecord(session->done, queue);
  return rf_lost(session, "rf_run", code);
}

// Waits for the last run and says how it went: 1 if it failed, and rf_last_error has the reason.
extern "C" int rf_check(void* handle) {
  rf_session* session = static_cast<rf_session*>(handle);
  if (session->dead) return 1;
  cudaError_t code = cudaEventSynchronize(session->done);
  if (code != cudaSuccess) return rf_lost(session, "the kernel", code);
  if (!RF_SPIN_CAP) return 0;
  rf_control control;
  const size_t header = sizeof control - sizeof control.counters;
  code = cudaMemcpy(&control, session->control, header, cudaMemcpyDeviceToHost);
  if (code == cudaSuccess && !control.abort) return 0;
  if (code == cudaSuccess) {
    code = cudaMemset(session->control, 0, RF_CONTROL_WORDS * 4);
    if (code == cudaSuccess) code = cudaDeviceSynchronize();
  }
  if (code != cudaSuccess) return rf_lost(session, "the kernel", code);
  rf_describe(session->error, sizeof session->error, control.report);
  return 1;
}

extern "C" const char* rf_last_error(void* handle) {
  return handle ? static_cast<rf_session*>(handle)->error : rf_create_error;
}
extern "C" unsigned long long rf_workspace_size(void) { return RF_WORKSPACE_BYTES; }
