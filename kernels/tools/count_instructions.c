// A plug-in for QEMU that counts the guest's instructions: qemu-aarch64 -plugin count.so,out=FILE PROGRAM.
//
// QEMU's header is in no package of Debian, so the few functions used are declared here as its interface of version 1 has
// them (https://www.qemu.org/docs/master/devel/tcg-plugins.html). A block is straight-line code: entering it runs all of it.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef INTERFACE
#define INTERFACE 1
#endif
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                                  void (*callback)(qemu_plugin_id_t id, struct qemu_plugin_tb* block));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block,
                                                 void (*callback)(unsigned int cpu, void* data), int flags, void* data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t id, void* data),
                                           void* data);

EXPORT int qemu_plugin_version = INTERFACE;

static uint64_t instructions;
static char out[4096];

// Threads of the guest would need atomic additions; what is counted runs on one.
static void enter(unsigned int cpu, void* data) {
  (void)cpu;
  instructions += (uint64_t)(uintptr_t)data;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, enter, 0, (void*)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void done(qemu_plugin_id_t id, void* data) {
  (void)id;
  (void)data;
  FILE* file = fopen(out, "w");
  if (file == NULL) return;
  fprintf(file, "%llu\n", (unsigned long long)instructions);
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int count, char** words) {
  (void)info;
  if (count != 1 || strncmp(words[0], "out=", 4) != 0 || strlen(words[0]) >= sizeof(out)) return -1;
  strcpy(out, words[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, done, NULL);
  return 0;
}
