/* Writes down what a process does to the files below POWERCUT_ROOT, in order, into POWERCUT_LOG (see powercut.py).

   Loaded before libc (LD_PRELOAD). Each call is done first and then noted, under one lock, so the notes have the order of the deeds. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct note { char deed; char pad[3]; uint32_t a, b; uint64_t offset, size; } __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int notes = -1;


static int below(const char *path) {
    const char *root = getenv("POWERCUT_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t n = syscall(SYS_write, notes, at, size);
        if (n < 0) { if (errno == EINTR) continue; _exit(97); }
        at += n, size -= n;
    }
}

static void note(char deed, const char *a, const char *b, uint64_t offset, const struct iovec *data, int parts, uint64_t size) {
    int kept = errno;
    if (notes < 0) {
        int made = syscall(SYS_openat, AT_FDCWD, getenv("POWERCUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (made < 0) _exit(98);
        notes = syscall(SYS_fcntl, made, F_DUPFD_CLOEXEC, 200); /* out of the way of the program's own */
        syscall(SYS_close, made);
    }
    struct note head = {deed, {0}, strlen(a), b ? strlen(b) : 0, offset, size};
    put(&head, sizeof head);
    put(a, head.a);
    if (b) put(b, head.b);
    for (int k = 0; k < parts && size; k++) {
        size_t n = data[k].iov_len < size ? data[k].iov_len : size;
        put(data[k].iov_base, n);
        size -= n;
    }
    errno = kept;
}

static const char *named(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return NULL;
    path[n] = 0;
    return strstr(path, " (deleted)") ? NULL : path;
}

static const char *placed(int folder, const char *name, char *path) {
    if (name[0] == '/') return name;
    char base[PATH_MAX];
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !named(folder, base)) return NULL;
    if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return NULL;
    return path;
}

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    int kept = errno;
    const char *path = placed(folder, name, buffer);
    errno = kept;
    if (!below(path) || !(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, folder, name, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int there = fstatat(folder, name, &before, 0) == 0;
    errno = kept;
    int fd = syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0 && !there) note('c', path, NULL, 0, NULL, 0, 0);
    else if (fd >= 0 && (flags & O_TRUNC)) note('t', path, NULL, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, int); va_end(list); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t wrote(int fd, const struct iovec *data, int parts, int64_t offset) {
    char buffer[PATH_MAX];
    int kept = errno;
    const char *path = named(fd, buffer);
    errno = kept;
    int ours = below(path);
    if (ours) pthread_mutex_lock(&lock);
    ssize_t n = offset < 0 ? syscall(SYS_writev, fd, data, parts) : syscall(SYS_pwrite64, fd, data->iov_base, data->iov_len, offset);
    if (ours) {
        if (n > 0) note('w', path, NULL, offset < 0 ? lseek(fd, 0, SEEK_CUR) - n : offset, data, parts, n);
        pthread_mutex_unlock(&lock);
    }
    return n;
}

ssize_t write(int fd, const void *data, size_t size) { struct iovec one = {(void *)data, size}; return wrote(fd, &one, 1, -1); }
ssize_t writev(int fd, const struct iovec *data, int parts) { return wrote(fd, data, parts, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { struct iovec one = {(void *)data, size}; return wrote(fd, &one, 1, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { struct iovec one = {(void *)data, size}; return wrote(fd, &one, 1, offset); }

#define ON_FILE(deed, call, size) \
    char buffer[PATH_MAX]; \
    const char *path = named(fd, buffer); \
    int ours = below(path); \
    if (ours) pthread_mutex_lock(&lock); \
    int rc = call; \
    if (ours) { if (rc == 0) note(deed, path, NULL, size, NULL, 0, 0); pthread_mutex_unlock(&lock); } \
    return rc;
int ftruncate(int fd, off_t size) { ON_FILE('t', syscall(SYS_ftruncate, fd, size), size) }
int ftruncate64(int fd, off64_t size) { ON_FILE('t', syscall(SYS_ftruncate, fd, size), size) }
int fsync(int fd) { ON_FILE('s', syscall(SYS_fsync, fd), 0) }
int fdatasync(int fd) { ON_FILE('s', syscall(SYS_fdatasync, fd), 0) }

#define ON_NAMES(deed, from_folder, from, to_folder, to, call) \
    char first[PATH_MAX], second[PATH_MAX]; \
    const char *a = placed(from_folder, from, first), *b = (to) ? placed(to_folder, (to) ? (to) : "", second) : NULL; \
    int ours = below(a) || below(b); \
    if (ours) pthread_mutex_lock(&lock); \
    int rc = call; \
    if (ours) { if (rc == 0) note(deed, a, b, 0, NULL, 0, 0); pthread_mutex_unlock(&lock); } \
    return rc;
#define NONE ((const char *)NULL)
int rename(const char *from, const char *to) { ON_NAMES('r', AT_FDCWD, from, AT_FDCWD, to, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)) }
int renameat(int x, const char *from, int y, const char *to) { ON_NAMES('r', x, from, y, to, syscall(SYS_renameat2, x, from, y, to, 0)) }
int link(const char *from, const char *to) { ON_NAMES('l', AT_FDCWD, from, AT_FDCWD, to, syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)) }
int linkat(int x, const char *from, int y, const char *to, int flags) { ON_NAMES('l', x, from, y, to, syscall(SYS_linkat, x, from, y, to, flags)) }
int unlink(const char *name) { ON_NAMES('u', AT_FDCWD, name, 0, NONE, syscall(SYS_unlinkat, AT_FDCWD, name, 0)) }
int unlinkat(int x, const char *name, int flags) { ON_NAMES((flags & AT_REMOVEDIR) ? 'd' : 'u', x, name, 0, NONE, syscall(SYS_unlinkat, x, name, flags)) }
int rmdir(const char *name) { ON_NAMES('d', AT_FDCWD, name, 0, NONE, syscall(SYS_unlinkat, AT_FDCWD, name, AT_REMOVEDIR)) }
int mkdir(const char *name, mode_t mode) { ON_NAMES('m', AT_FDCWD, name, 0, NONE, syscall(SYS_mkdirat, AT_FDCWD, name, mode)) }
int mkdirat(int x, const char *name, mode_t mode) { ON_NAMES('m', x, name, 0, NONE, syscall(SYS_mkdirat, x, name, mode)) }
