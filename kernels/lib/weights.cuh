// Reading the weights file: safetensors, that is eight bytes of header length, a JSON header, and
// the data. Offsets are fixed when the model is compiled; the header has to hold the digest that
// this program was made with.
static long long rf_weights_start(const char* file, unsigned long long bytes, const char** error) {
  unsigned long long header = 0;
  if (bytes >= 8) memcpy(&header, file, 8);
  if (bytes < 8 + RF_WEIGHT_BYTES || header > bytes - 8 - RF_WEIGHT_BYTES) {
    *error = "the weights file is truncated";
    return -1;
  }
  const unsigned long long length = strlen(RF_WEIGHTS_DIGEST);
  for (unsigned long long i = 8; i + length <= 8 + header; ++i)
    if (memcmp(file + i, RF_WEIGHTS_DIGEST, length) == 0) return (long long)(8 + header);
  *error = "the weights file belongs to another program";
  return -1;
}

struct rf_file {
  char* data;
  unsigned long long bytes;
};

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
static rf_file rf_open_file(const char* path) {
  rf_file file = {nullptr, 0};
  const int handle = open(path, O_RDONLY);
  if (handle < 0) return file;
  struct stat info;
  if (fstat(handle, &info) == 0 && info.st_size > 0) {
    void* data = mmap(nullptr, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, handle, 0);
    if (data != MAP_FAILED) {
      file.data = static_cast<char*>(data);
      file.bytes = (unsigned long long)info.st_size;
    }
  }
  close(handle);
  return file;
}
static void rf_close_file(rf_file file) {
  if (file.data) munmap(file.data, file.bytes);
}
#else
static rf_file rf_open_file(const char* path) {
  rf_file file = {nullptr, 0};
  FILE* handle = fopen(path, "rb");
  if (!handle) return file;
  fseek(handle, 0, SEEK_END);
  const long bytes = ftell(handle);
  fseek(handle, 0, SEEK_SET);
  file.data = static_cast<char*>(malloc((size_t)bytes));
  file.bytes = file.data ? fread(file.data, 1, (size_t)bytes, handle) : 0;
  fclose(handle);
  return file;
}
static void rf_close_file(rf_file file) { free(file.data); }
#endif
