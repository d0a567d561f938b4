// A program that runs by itself: reads raw inputs, or makes some up, runs, and writes raw outputs.
#if !defined(RF_LIBRARY) && !defined(RF_EMULATE)
#include <time.h>

static double rf_seconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Ports are memory of the device. What goes in is staged first, and what comes out is fetched; on a
// CPU both are the port itself, so that nothing is there twice.
#if defined(__CUDACC__)
static void* rf_allocate(rf_size bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes + 16) == cudaSuccess ? memory : nullptr;
}
static char* rf_buffer(void*, rf_size bytes) { return static_cast<char*>(calloc(1, bytes + 16)); }
static void rf_send(void* port, char* staged, rf_size bytes) {
  cudaMemcpy(port, staged, bytes, cudaMemcpyHostToDevice);
  free(staged);
}
static char* rf_fetch(void* port, rf_size bytes) {
  char* data = rf_buffer(port, bytes);
  cudaMemcpy(data, port, bytes, cudaMemcpyDeviceToHost);
  return data;
}
static void rf_drop(char* fetched) { free(fetched); }
#else
static void* rf_allocate(rf_size bytes) { return rf_aligned(bytes + 16); }
static char* rf_buffer(void* port, rf_size bytes) {
  return static_cast<char*>(memset(port, 0, bytes + 16));
}
static void rf_send(void*, char*, rf_size) {}
static char* rf_fetch(void* port, rf_size) { return static_cast<char*>(port); }
static void rf_drop(char*) {}
#endif

static int rf_usage(const char* program) {
  fprintf(stderr,
          "usage: %s [--weights FILE] [--in NAME=FILE]... [--out NAME=FILE]... [--repeat N] "
          "[--threads N]\nraw files in index order; inputs that are not given are made up\n",
          program);
  for (int i = 0; i < RF_INPUTS + RF_OUTPUTS - RF_CHECKS; ++i)
    fprintf(stderr, "  %s %s: %s, %llu bytes\n", i < RF_INPUTS ? "in " : "out", rf_port_names[i],
            rf_port_types[i], rf_port_bytes[i]);
  return 2;
}

// The port that NAME=FILE means, and where FILE starts; -1 if there is no such port.
static int rf_port(const char* argument, int first, int last, const char** file) {
  for (int i = first; i < last; ++i) {
    const size_t length = strlen(rf_port_names[i]);
    if (strncmp(argument, rf_port_names[i], length) == 0 && argument[length] == '=') {
      *file = argument + length + 1;
      return i;
    }
  }
  return -1;
}

// Made-up numbers between -1 and 1, or small integers, the same at every start.
static void rf_make_up(char* data, int port) {
  unsigned state = 12345u + (unsigned)port;
  const bool is_float = strncmp(rf_port_types[port], "float32", 7) == 0;
  for (rf_size i = 0; is_float && i < rf_port_bytes[port] / 4; ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = (float)(state >> 8) / 8388608.0f - 1.0f;
    memcpy(data + 4 * i, &value, 4);
  }
}

static bool rf_read(const char* path, char* data, rf_size bytes) {
  FILE* file = fopen(path, "rb");
  const bool whole = file && fread(data, 1, bytes, file) == bytes && fgetc(file) == EOF;
  if (file) fclose(file);
  return whole;
}

static bool rf_write(const char* path, const char* data, rf_size bytes) {
  FILE* file = fopen(path, "wb");
  if (!file) return false;
  const bool whole = fwrite(data, 1, bytes, file) == bytes;
  return fclose(file) == 0 && whole;
}

struct rf_options {
  const char* weights;
  const char* files[RF_INPUTS + RF_OUTPUTS];
  int repeat, threads;
};

static bool rf_parse(int count, char** arguments, rf_options* options) {
  for (int i = 1; i + 1 < count; i += 2) {
    const char *name = arguments[i], *value = arguments[i + 1], *file = nullptr;
    int port = 0;
    if (strcmp(name, "--weights") == 0) {
      options->weights = value;
    } else if (strcmp(name, "--repeat") == 0) {
      options->repeat = atoi(value);
    } else if (strcmp(name, "--threads") == 0) {
      options->threads = atoi(value);
    } else if (strcmp(name, "--in") == 0 && (port = rf_port(value, 0, RF_INPUTS, &file)) >= 0) {
      options->files[port] = file;
    } else if (strcmp(name, "--out") == 0 &&
               (port = rf_port(value, RF_INPUTS, RF_INPUTS + RF_OUTPUTS - RF_CHECKS, &file)) >= 0) {
      options->files[port] = file;
    } else {
      return false;
    }
  }
  return count % 2 == 1 && options->repeat > 0;
}

int main(int count, char** arguments) {
  rf_options options = {};
  options.weights = RF_WEIGHTS_FILE;
  options.repeat = 1;
  if (!rf_parse(count, arguments, &options)) return rf_usage(arguments[0]);
  void* session = rf_create(options.weights, options.threads);
  if (!session) {
    fprintf(stderr, "%s\nname the weights with --weights FILE\n", rf_last_error(nullptr));
    return 4;
  }
  void* ports[RF_INPUTS + RF_OUTPUTS];
  for (int i = 0; i < RF_INPUTS + RF_OUTPUTS; ++i) {
    ports[i] = rf_allocate(rf_port_bytes[i]);
    if (!ports[i]) {
      fprintf(stderr, "no memory for the %llu bytes of %s\n", rf_port_bytes[i], rf_port_names[i]);
      return 4;
    }
    if (i >= RF_INPUTS) continue;
    char* data = rf_buffer(ports[i], rf_port_bytes[i]);
    if (!options.files[i]) {
      rf_make_up(data, i);
    } else if (!rf_read(options.files[i], data, rf_port_bytes[i])) {
      fprintf(stderr, "%s: does not hold exactly the %llu bytes of input %s\n", options.files[i],
              rf_port_bytes[i], rf_port_names[i]);
      return 4;
    }
    rf_send(ports[i], data, rf_port_bytes[i]);
  }
  double best = 1e30;
  for (int i = 0; i < options.repeat; ++i) {
    const double start = rf_seconds();
    if (rf_run(session, ports, ports + RF_INPUTS, nullptr, nullptr) || rf_check(session)) {
      fprintf(stderr, "the run failed: %s\n", rf_last_error(session));
      return 1;
    }
    const double taken = rf_seconds() - start;
    if (taken < best) best = taken;
  }
  printf("%s: %d run(s), best %.3f ms\n", RF_MODEL, options.repeat, best * 1e3);
  for (int i = RF_INPUTS + RF_OUTPUTS - RF_CHECKS; i < RF_INPUTS + RF_OUTPUTS; ++i) {
    int wrong = 0;
    char* data = rf_fetch(ports[i], sizeof wrong);
    memcpy(&wrong, data, sizeof wrong);
    rf_drop(data);
    if (wrong) {
      fprintf(stderr, "%s\n", rf_check_texts[i - (RF_INPUTS + RF_OUTPUTS - RF_CHECKS)]);
      return 3;
    }
  }
  for (int i = RF_INPUTS; i < RF_INPUTS + RF_OUTPUTS - RF_CHECKS; ++i) {
    if (!options.files[i]) continue;
    char* data = rf_fetch(ports[i], rf_port_bytes[i]);
    if (!rf_write(options.files[i], data, rf_port_bytes[i])) {
      fprintf(stderr, "%s: cannot be written\n", options.files[i]);
      return 4;
    }
    rf_drop(data);
  }
  rf_destroy(session);
  return 0;
}
#endif
