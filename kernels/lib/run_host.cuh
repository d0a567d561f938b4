// The C interface on a CPU: each core is a vEU that runs its share of the lanes. Cores meet at the
// plan's counters, and once more between launches; a core that waits long sleeps on a futex.
#if !defined(RF_SIMT)
#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

struct rf_session;
struct rf_worker {
  rf_session* session;
  pthread_t thread;
  int index;
  char* arena;
};

struct rf_session {
  rf_control* control;
  char* spaces[RF_SPACES];
  rf_file weights;
  char* workspace;  // owned; the caller may bring another one
  rf_worker* workers;
  int count;
  int home;           // the core that the caller was on, counted from 1
  unsigned started;   // runs handed to the workers
  unsigned meetings;  // arrivals at the meetings between launches and at the end
  unsigned stop;
  double launch_ns[RF_LAUNCHES];  // of the last run, in a timing build
  char error[512];
};

static char rf_create_error[512];

static char* rf_aligned(rf_size bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, bytes ? bytes : 1)) return nullptr;
  return static_cast<char*>(memory);
}

static void rf_meet(rf_session* session, unsigned target) {
  rf_advance(&session->meetings, 1);
  rf_await(&session->meetings, target, &session->stop, 0, RF_SPINS);
}

static double rf_clock_ns() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static void rf_work(rf_worker* worker, unsigned run) {
  rf_session* session = worker->session;
  const unsigned count = (unsigned)session->count;
  const unsigned epoch = session->control->epoch;  // nobody changes it while cores are at work
  for (unsigned launch = 0; launch < RF_LAUNCHES; ++launch) {
    const double start = RF_TIMING ? rf_clock_ns() : 0.0;
    if (!rf_load_relaxed(&session->control->abort))
      rf_run_lanes<~0u>(session->spaces, session->control, worker->arena, (int)launch,
                        worker->index, session->count, epoch);
    rf_meet(session, (run * RF_LAUNCHES + launch + 1) * count);
    if (RF_TIMING && worker->index == 0) session->launch_ns[launch] = rf_clock_ns() - start;
  }
}

// For the length of a run the caller stays on its core and the workers leave that one alone. A
// thread that wakes another one is often given it as a neighbour, and two that wait for each other
// would take turns on one core.
#if defined(__linux__)
static bool rf_hold_cores(rf_session* session, cpu_set_t* before) {
  const int home = sched_getcpu();
  if (session->count == 1 || home < 0 || sched_getaffinity(0, sizeof *before, before)) return false;
  if (CPU_COUNT(before) < session->count) return false;
  if (session->home != home + 1) {
    cpu_set_t others = *before;
    CPU_CLR(home, &others);
    for (int i = 1; i < session->count; ++i)
      pthread_setaffinity_np(session->workers[i].thread, sizeof others, &others);
    session->home = home + 1;
  }
  cpu_set_t own;
  CPU_ZERO(&own);
  CPU_SET(home, &own);
  return sched_setaffinity(0, sizeof own, &own) == 0;
}
static void rf_let_cores_go(const cpu_set_t* before) {
  sched_setaffinity(0, sizeof *before, before);
}
#else
struct cpu_set_t {};
static bool rf_hold_cores(rf_session*, cpu_set_t*) { return false; }
static void rf_let_cores_go(const cpu_set_t*) {}
#endif

static void* rf_worker_main(void* argument) {
  rf_worker* worker = static_cast<rf_worker*>(argument);
  rf_session* session = worker->session;
  for (unsigned run = 0;; ++run) {
    rf_await(&session->started, run + 1, &session->stop, 0, 0);  // sleeps between runs
    if (__atomic_load_n(&session->stop, __ATOMIC_ACQUIRE)) return nullptr;
    rf_work(worker, run);
  }
}

extern "C" void rf_destroy(void* handle) {
  rf_session* session = static_cast<rf_session*>(handle);
  if (!session) return;
  __atomic_store_n(&session->stop, 1u, __ATOMIC_RELEASE);
  rf_advance(&session->started, 1);
  for (int i = 1; session->workers && i < session->count; ++i)
    if (session->workers[i].thread) pthread_join(session->workers[i].thread, nullptr);
  for (int i = 0; session->workers && i < session->count; ++i) free(session->workers[i].arena);
  rf_close_file(session->weights);
  free(session->workspace);
  free(session->workers);
  free(session->control);
  free(session);
}

static void* rf_refuse(rf_session* session, const char* path, const char* reason) {
  snprintf(rf_create_error, sizeof rf_create_error, "%s: %s", path, reason);
  rf_destroy(session);
  return nullptr;
}

extern "C" void* rf_create(const char* weights_path, int threads) {
  rf_session* session = static_cast<rf_session*>(calloc(1, sizeof(rf_session)));
  session->count = threads > 0 ? threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (session->count > RF_LANES) session->count = RF_LANES;
  session->control = reinterpret_cast<rf_control*>(rf_aligned(RF_CONTROL_WORDS * 4));
  memset(session->control, 0, RF_CONTROL_WORDS * 4);
  session->workspace = rf_aligned(RF_WORKSPACE_BYTES);
  session->workers = static_cast<rf_worker*>(calloc((size_t)session->count, sizeof(rf_worker)));
  if (RF_WEIGHT_BYTES) {
    session->weights = rf_open_file(weights_path);
    if (!session->weights.data) return rf_refuse(session, weights_path, "cannot be read");
    const char* error = nullptr;
    const long long start = rf_weights_start(session->weights.data, session->weights.bytes, &error);
    if (start < 0) return rf_refuse(session, weights_path, error);
    session->spaces[1] = session->weights.data + start;
  }
  for (int i = 0; i < session->count; ++i) {
    rf_worker* worker = &session->workers[i];
    worker->session = session;
    worker->index = i;
    worker->arena = rf_aligned(RF_HOST_ARENA_BYTES);
    if (i && pthread_create(&worker->thread, nullptr, rf_worker_main, worker))
      return rf_refuse(session, weights_path, "a thread could not be started");
  }
  return session;
}

extern "C" int rf_run(void* handle, const void* const* inputs, void* const* outputs,
                      void* workspace, void* stream) {
  (void)stream;
  rf_session* session = static_cast<rf_session*>(handle);
  session->spaces[0] = workspace ? static_cast<char*>(workspace) : session->workspace;
  for (int i = 0; i < RF_INPUTS; ++i)
    session->spaces[2 + i] = static_cast<char*>(const_cast<void*>(inputs[i]));
  for (int i = 0; i < RF_OUTPUTS; ++i)
    session->spaces[2 + RF_INPUTS + i] = static_cast<char*>(outputs[i]);
  cpu_set_t before;
  const bool holds = rf_hold_cores(session, &before);
  const unsigned run = session->started;  // only this thread changes it
  rf_advance(&session->started, 1);
  rf_work(&session->workers[0], run);
  if (holds) rf_let_cores_go(&before);
  if (!session->control->abort) {
    ++session->control->epoch;
    return 0;
  }
  rf_describe(session->error, sizeof session->error, session->control->report);
  memset(session->control, 0, RF_CONTROL_WORDS * 4);
  return 1;
}

// A run here is over when rf_run comes back, and has told how it went.
extern "C" int rf_check(void*) { return 0; }

#if RF_TIMING
// How long each launch of the last run took, until all cores had met.
extern "C" const double* rf_launch_ns(void* handle) {
  return static_cast<rf_session*>(handle)->launch_ns;
}
#endif

extern "C" const char* rf_last_error(void* handle) {
  return handle ? static_cast<rf_session*>(handle)->error : rf_create_error;
}
extern "C" unsigned long long rf_workspace_size(void) { return RF_WORKSPACE_BYTES; }
#endif
