/* The program around every program of an image.

     entry monitor INDEX USERS MOUNTS BWRAP [WORD ...]
     entry init DESCRIPTOR LOCK SIGNALS SHOWN PROGRAM [ARGUMENT ...]
     entry exec SIGNALS PROGRAM NAME [ARGUMENT ...]

   A start makes four processes of it, each the parent of the next:

     monitor   outside; what the client becomes. It ends as soon as PROGRAM has, with its code.
     BWRAP     outside; makes the sandbox. The monitor ends it.
     init      inside: bubblewrap's --as-pid-1. It stays until all that PROGRAM has left has ended.
     PROGRAM

   Bubblewrap's own init would do, if it let go of the caller's streams: `$(IMAGE launcher)` would
   wait for what the launcher left. And a monitor that is killed has to take all of it along.

   monitor  Joins the namespaces USERS and MOUNTS, paths below /proc, as far as they are named, and
            stays in its directory. (That is nsenter(1)'s part, at a twentieth of its cost.)
            Writes the number of a pipe's writing end into its word INDEX, which is DESCRIPTOR, and
            waits for the one byte that comes from there: the exit code.
   init     Locks the file LOCK (fcntl(2)), byte 0 while it lives itself and byte 1 while PROGRAM
            does: whoever asks the kernel for the lock learns of both. With nobody to read from the
            pipe any more the monitor was killed, and as process 1 init ends all others by its own
            end. Without a process namespace it goes on, and inherits what PROGRAM has left.
            SHOWN says of parts of the host what they were when they were checked, one behind the
            other: MAJOR:MINOR:INODE:LENGTH:PATH, with the path inside. Bubblewrap takes them by
            their names, in directories that other programs may write to, so that what is there
            inside is looked at before PROGRAM is.
   More words than bubblewrap takes go by a file in memory: in place of PROGRAM and its arguments init
   then has a word with the number of the descriptor by which it reads them.

   exec     PROGRAM alone, by the NAME that it was asked for: for one that comes later.

   Each letter of SIGNALS is a signal that gets its default action again: a for 1 (SIGHUP), b for 2
   (SIGINT), c for 3 (SIGQUIT). Who starts bubblewrap has it ignore them, an ignored signal stays
   ignored by whatever is executed, and no shell may change that (POSIX, `trap`).

   No PROGRAM types into its user's terminal: the ioctls that do it are refused by a filter, which
   all that it starts inherits. Where the kernel has no filters it gets a session of its own, which
   has no terminal to type into, and no job control either.

   Nor has one the keys of its user's session (keyrings(7)): to it the kernel knows of no keys.

   Where root inside has no id but one, what takes others succeeds for PROGRAM without effect, by a
   filter too: package managers give each file an owner, and become other users to fetch it.

   The monitor and init go by the name of bubblewrap, whose parts they take: that is what people look
   for among their processes.

   It runs where libraries are the image's own or missing, so it is static and stands on the kernel
   alone; packaging/entry compiles it. */

#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <asm/ioctls.h>

#define EPERM 1
#define EINTR 4
#define EACCES 13
#define ENOSYS 38
#define SIGKILL 9
#define SIGPIPE 13
#define SIGCHLD 17
#define SIG_BLOCK 0
#define SIG_IGN 1
#define POLLIN 1
#define POLLERR 8
#define WNOHANG 1
#define UNKNOWN 127      /* a shell's exit code for a program that can't be executed */
#define KILLED 128       /* and, with the signal added, for one that a signal ended */

typedef unsigned long word;

/* What differs by machine: how it begins, how it calls the kernel, and the filter's constants.

   A 64-bit kernel takes the calls of 32-bit programs too, from any program; x32 marks its numbers
   by a bit, and has one of its own for ioctl. */

#if defined(__x86_64__) || defined(__i386__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define IOCTL 16
#define IOCTL_TOO 514
#define NUMBER_MASK ~0x40000000u
#define ARCHITECTURE_32 AUDIT_ARCH_I386
#define KEYS(REFUSE) REFUSE(248) REFUSE(249) REFUSE(250) /* add_key request_key keyctl */
#define KEYS_32(REFUSE) REFUSE(286) REFUSE(287) REFUSE(288)
#define FAKED(FAKE) /* chown fchown lchown fchownat capset set: groups, uid, gid, re-, res-, fs- */ \
  FAKE(92) FAKE(93) FAKE(94) FAKE(260) FAKE(126) FAKE(116) FAKE(105) FAKE(106) FAKE(113) FAKE(114) \
  FAKE(117) FAKE(119) FAKE(122) FAKE(123)
#define MKNOD 133
#define MKNODAT 259
#define FCHOWNAT_32 298
#define MKNODAT_32 297
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define IOCTL 29
#define IOCTL_TOO 29
#define NUMBER_MASK ~0u
#define ARCHITECTURE_32 AUDIT_ARCH_ARM
#define KEYS(REFUSE) REFUSE(217) REFUSE(218) REFUSE(219) /* add_key request_key keyctl */
#define KEYS_32(REFUSE) REFUSE(309) REFUSE(310) REFUSE(311)
#define FAKED(FAKE) /* fchown fchownat capset set: groups, uid, gid, re-, res-, fs- */ \
  FAKE(55) FAKE(54) FAKE(91) FAKE(159) FAKE(146) FAKE(144) FAKE(145) FAKE(143) FAKE(147) FAKE(149) \
  FAKE(151) FAKE(152)
#define MKNOD MKNODAT /* there is no other */
#define MKNODAT 33
#define FCHOWNAT_32 325
#define MKNODAT_32 324
#else
#error "fimd/launch/entry.c does not know this machine: it needs its way of calling the kernel"
#endif
#define IOCTL_32 54
#define FAKED_32(FAKE) /* the same, each by 16 and by 32 bits */ \
  FAKE(182) FAKE(95) FAKE(16) FAKE(FCHOWNAT_32) FAKE(185) FAKE(81) FAKE(23) FAKE(46) FAKE(70) FAKE(71) \
  FAKE(164) FAKE(170) FAKE(138) FAKE(139) FAKE(212) FAKE(207) FAKE(198) FAKE(206) FAKE(213) FAKE(214) \
  FAKE(203) FAKE(204) FAKE(208) FAKE(210) FAKE(215) FAKE(216)
#define MKNOD_32 14
#ifdef __NR_setfsuid32
#define SETFSUID __NR_setfsuid32
#else
#define SETFSUID __NR_setfsuid
#endif

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n hlt\n");

static long call(long number, word a, word b, word c, word d, word e) {
  long result;
  register word r10 __asm__("r10") = d;
  register word r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__i386__)
__asm__(".globl _start\n_start: mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n"
        " call begin\n hlt\n");

static long call(long number, word a, word b, word c, word d, word e) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                   : "memory");
  return result;
}
#else
__asm__(".globl _start\n_start: mov x0, sp\n bl begin\n brk #0\n");

static long call(long number, word a, word b, word c, word d, word e) {
  register word x8 __asm__("x8") = (word)number;
  register word x0 __asm__("x0") = a;
  register word x1 __asm__("x1") = b;
  register word x2 __asm__("x2") = c;
  register word x3 __asm__("x3") = d;
  register word x4 __asm__("x4") = e;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return (long)x0;
}
#endif

/* ---- the kernel's calls, as far as they are needed ---- */

struct poll {
  int descriptor;
  short events, happened;
};

static __attribute__((noreturn)) void leave(int code) {
  for (;;) call(__NR_exit_group, (word)code, 0, 0, 0, 0);
}

static long fork(void) { return call(__NR_clone, SIGCHLD, 0, 0, 0, 0); }

static long wait_for(long process, int *status, int options) {
  long ended;
  do ended = call(__NR_wait4, (word)process, (word)status, (word)options, 0, 0);
  while (ended == -EINTR);
  return ended;
}

static void close_range(unsigned first, unsigned last) {
  if (first <= last) call(__NR_close_range, first, last, 0, 0, 0);
}

static int exit_code(int status) {
  return status & 0x7f ? KILLED + (status & 0x7f) : status >> 8 & 0xff;
}

/* ---- words ---- */

static word length(const char *text) {
  word count = 0;
  while (text[count]) count++;
  return count;
}

static unsigned number(const char *digits) {
  unsigned value = 0;
  for (; *digits >= '0' && *digits <= '9'; digits++) value = value * 10 + (unsigned)(*digits - '0');
  return value;
}

/* Write a number in place of a word, with zeros before it. */
static void write_number(char *place, unsigned value) {
  for (word at = length(place); at-- > 0; value /= 10) place[at] = (char)('0' + value % 10);
}

static void say(const char *text) { call(__NR_write, 2, (word)text, length(text), 0, 0); }

static __attribute__((noreturn)) void fail(const char *what, const char *why) {
  say("fimd: ");
  say(what);
  say(why);
  leave(UNKNOWN);
}

/* ---- what a program is kept from, and given ---- */

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, __builtin_offsetof(struct seccomp_data, member))
#define IF(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)

/* One filter for each way of calling the kernel, all of the same form. */
#define FILTER(architecture, mask, ...) \
  {LOAD(arch), \
   IF(architecture, 1, 0), \
   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW), \
   LOAD(nr), \
   BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask), \
   __VA_ARGS__ \
   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}

/* The kernel takes the low half of ioctl's request alone, and so does this: the first four bytes,
   on machines that begin with the low ones. */
#define FAIL(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define REFUSE(number) IF(number, 0, 1), FAIL(ENOSYS),
#define NO_TYPING(number, other) \
  IF(number, 1, 0), IF(other, 0, 5), LOAD(args[1]), \
      IF(TIOCSTI, 0, 1), FAIL(EPERM), IF(TIOCLINUX, 0, 1), FAIL(EPERM),
static const struct sock_filter KEPT_NATIVE[] =
    FILTER(ARCHITECTURE, NUMBER_MASK, KEYS(REFUSE) NO_TYPING(IOCTL, IOCTL_TOO));
static const struct sock_filter KEPT_32[] =
    FILTER(ARCHITECTURE_32, ~0u, KEYS_32(REFUSE) NO_TYPING(IOCTL_32, IOCTL_32));

#define SUCCEED BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO)
#define FAKE(number) IF(number, 0, 1), SUCCEED,
#define FAKE_DEVICES(number, mode) /* whose mode is that argument */ \
  IF(number, 0, 6), LOAD(args[mode]), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0170000), \
      FAKE(0020000) FAKE(0060000)
#define ROOT(faked, mknod, mknodat) \
  faked(FAKE) FAKE_DEVICES(mknodat, 2) FAKE_DEVICES(mknod, 1)
static const struct sock_filter ROOT_NATIVE[] =
    FILTER(ARCHITECTURE, NUMBER_MASK, ROOT(FAKED, MKNOD, MKNODAT));
static const struct sock_filter ROOT_32[] =
    FILTER(ARCHITECTURE_32, ~0u, ROOT(FAKED_32, MKNOD_32, MKNODAT_32));

/* For who has given up to gain rights; tells whether the kernel has taken it. */
static int filter(const struct sock_filter *words, word size) {
  struct sock_fprog program = {(unsigned short)(size / sizeof *words), (struct sock_filter *)words};
  /* without the flag, older kernels make all that the program does slower (spec_store_bypass) */
  return call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, (word)&program,
              0, 0) == 0;
}

static void keep_apart(void) {
  call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (filter(KEPT_NATIVE, sizeof KEPT_NATIVE) && filter(KEPT_32, sizeof KEPT_32)) return;
  call(__NR_setsid, 0, 0, 0, 0, 0);
}

/* Whether this is root, and nobody else is there to become. */
static int is_root_alone(void) {
  if (call(__NR_geteuid, 0, 0, 0, 0, 0) != 0) return 0;
  call(SETFSUID, 1, 0, 0, 0, 0); /* which tells nothing but who it was before */
  int is_alone = call(SETFSUID, (word)-1, 0, 0, 0, 0) != 1;
  call(SETFSUID, 0, 0, 0, 0, 0);
  return is_alone;
}

static void be_called_bubblewrap(void) {
  call(__NR_prctl, PR_SET_NAME, (word) "bwrap", 0, 0, 0);
}

/* Drop from the bounding set what the process has not, which only root inside may do. */
static void bound_rights(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct had[2];
  if (call(__NR_capget, (word)&header, (word)had, 0, 0, 0) != 0) return;
  for (unsigned right = 0; right < 64; right++)
    if (!(had[right / 32].permitted >> right % 32 & 1))
      call(__NR_prctl, PR_CAPBSET_DROP, right, 0, 0, 0);
}

static void set_action(unsigned signal, word action) {
  word facts[5] = {action, 0, 0, 0, 0}; /* a struct sigaction, without flags and mask */
  call(__NR_rt_sigaction, signal, (word)facts, 0, 8, 0);
}

static __attribute__((noreturn)) void become(const char *signals, const char *program, char **words,
                                             char **environment) {
  for (; *signals; signals++) set_action((unsigned)*signals & 31, 0);
  if (is_root_alone()) {
    filter(ROOT_NATIVE, sizeof ROOT_NATIVE);
    filter(ROOT_32, sizeof ROOT_32);
  }
  call(__NR_execve, (word)program, (word)words, (word)environment, 0, 0);
  fail(program, " can't be executed: the image lacks it, or what it needs.\n");
}

/* ---- more words than bubblewrap takes, which is 9000 with its own ---- */

#define MOST_WORDS 8900
#define SEEK_SET 0
#define SEEK_END 2

/* Put words into a file, and the number of its descriptor in their place. */
static void put_by(char **words) {
  static char name[] = "0000000000";
  /* the kernel lays words one behind the other, each with its NUL (execve(2)) */
  char *from = words[0], *end = from;
  for (char **at = words; *at; at++) end = *at + length(*at) + 1;
  long file = call(__NR_memfd_create, (word) "words", 0, 0, 0, 0);
  long kept = call(__NR_fcntl, (word)file, F_DUPFD, 10, 0, 0);
  if (file < 0 || kept < 0) fail("a file for the words", " can't be made: too many files are open.\n");
  call(__NR_close, (word)file, 0, 0, 0, 0);
  while (from < end) {
    long written = call(__NR_write, (word)kept, (word)from, (word)(end - from), 0, 0);
    if (written <= 0) fail("the words", " can't be handed on: there is no memory left.\n");
    from += written;
  }
  write_number(name, (unsigned)kept);
  words[0] = name;
  words[1] = 0;
}

static char *reserve(word size) {
  word start = ((word)call(__NR_brk, 0, 0, 0, 0, 0) + sizeof(word)) & -sizeof(word);
  if ((word)call(__NR_brk, start + size, 0, 0, 0, 0) < start + size)
    fail("the words", " can't be taken: there is no memory left.\n");
  return (char *)start;
}

/* Return the words that were put by, or those that are here. */
static char **fetch(char **words) {
  if (words[0][0] < '0' || words[0][0] > '9' || words[1]) return words;
  unsigned file = number(words[0]);
  long size = call(__NR_lseek, file, 0, SEEK_END, 0, 0), got = 0;
  call(__NR_lseek, file, 0, SEEK_SET, 0, 0);
  if (size <= 0) fail("the words", " can't be found: start this again.\n");
  char *text = reserve((word)size);
  for (long part; got < size; got += part)
    if ((part = call(__NR_read, file, (word)(text + got), (word)(size - got), 0, 0)) <= 0)
      fail("the words", " can't be read: start this again.\n");
  call(__NR_close, file, 0, 0, 0, 0);
  word count = 0;
  for (long at = 0; at < size; at++) count += !text[at];
  char **found = (char **)reserve((count + 1) * sizeof(char *));
  for (word at = 0; at < count; at++, text += length(text) + 1) found[at] = text;
  found[count] = 0;
  return found;
}

/* ---- what is shown of the host ---- */

static unsigned long long read_number(char **at) {
  unsigned long long value = 0;
  for (; **at >= '0' && **at <= '9'; ++*at) value = value * 10 + (unsigned)(**at - '0');
  if (**at == ':') ++*at;
  return value;
}

static long look(const char *path, struct statx *facts) {
  return call(__NR_statx, (word)AT_FDCWD, (word)path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS, (word)facts);
}

/* Tell whether PROGRAM can't come to a place, however it changes the directories above. */
static int is_closed(const char *path) {
  static char above[4096];
  struct statx facts;
  long found = -EACCES;
  word end = length(path);
  if (end >= sizeof above) return 0;
  for (word at = 0; at <= end; at++) above[at] = path[at];
  while (found == -EACCES && end > 1) {
    while (end > 1 && above[end - 1] != '/') end--;
    if (end > 1) end--;
    above[end] = 0;
    found = look(above, &facts);
  }
  return found == 0 && facts.stx_uid != (unsigned)call(__NR_geteuid, 0, 0, 0, 0, 0);
}

static void check(char *shown) {
  while (*shown) {
    struct statx facts;
    unsigned long long major = read_number(&shown), minor = read_number(&shown);
    unsigned long long inode = read_number(&shown), size = read_number(&shown);
    char *path = shown, next;
    if (!size || size > length(shown)) fail("entry", " was given no list of what is shown.\n");
    shown += size;
    next = *shown;
    *shown = 0;
    long found = look(path, &facts);
    int is_it = found == 0 && facts.stx_dev_major == major && facts.stx_dev_minor == minor &&
                facts.stx_ino == inode;
    if (!is_it && !(found == -EACCES && is_closed(path)))
      fail(path, " is no longer what it was when this start began: start it again.\n");
    *shown = next;
  }
}

/* ---- the three ---- */

static void join(const char *namespace) {
  if (!*namespace) return;
  long opened = call(__NR_openat, (word)AT_FDCWD, (word)namespace, O_RDONLY | O_CLOEXEC, 0, 0);
  if (opened < 0 || call(__NR_setns, (word)opened, 0, 0, 0, 0) != 0)
    fail(namespace, " can't be joined: the user's namespace has just ended, so start it again.\n");
  call(__NR_close, (word)opened, 0, 0, 0, 0);
}

/* Join the user's namespace; the directory is the one that the caller has. */
static void join_both(char **namespaces) {
  long here = call(__NR_openat, (word)AT_FDCWD, (word) ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0);
  for (int each = 0; each < 2; each++) join(namespaces[each]);
  if (here >= 0) call(__NR_fchdir, (word)here, 0, 0, 0, 0);
  call(__NR_close, (word)here, 0, 0, 0, 0);
  /* other rights than before would hide this process from its own user (prctl(2)) */
  call(__NR_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static __attribute__((noreturn)) void monitor(char **words, char **environment) {
  int ends[2], status = 0;
  unsigned char code;
  be_called_bubblewrap();
  join_both(words + 3);
  if (call(__NR_pipe2, (word)ends, O_CLOEXEC, 0, 0, 0) != 0)
    fail("a pipe", " can't be made: too many files are open.\n");
  long writer = call(__NR_fcntl, (word)ends[1], F_DUPFD, 10, 0, 0);
  if (writer < 0) fail("a descriptor", " can't be had: too many files are open.\n");
  call(__NR_close, (word)ends[1], 0, 0, 0, 0);
  char **descriptor = words + number(words[2]);
  write_number(*descriptor, (unsigned)writer);
  word count = 0;
  while (words[count]) count++;
  if (count > MOST_WORDS && words + count > descriptor + 4) put_by(descriptor + 4);

  long sandbox = fork();
  if (sandbox < 0) fail(words[5], " can't be started: there are too many processes.\n");
  if (sandbox == 0) {
    call(__NR_execve, (word)words[5], (word)(words + 5), (word)environment, 0, 0);
    fail(words[5], " can't be executed: install bubblewrap.\n");
  }
  call(__NR_close, (word)writer, 0, 0, 0, 0);
  long got;
  do got = call(__NR_read, (word)ends[0], (word)&code, 1, 0, 0);
  while (got == -EINTR);
  if (got == 1) {
    call(__NR_kill, (word)sandbox, SIGKILL, 0, 0, 0);
    leave(code);
  }
  wait_for(sandbox, &status, 0); /* it has ended without a program, and has said why */
  leave(exit_code(status));
}

/* Take the lock, by a descriptor that is kept: closing any of the file gives the lock up. */
static long take(const char *path) {
  struct flock lock = {.l_type = F_RDLCK, .l_start = 0, .l_len = 2};
  long opened = call(__NR_openat, (word)AT_FDCWD, (word)path, O_RDONLY | O_CLOEXEC, 0, 0);
  if (opened < 0) fail(path, " can't be opened: stop this instance, and start it again.\n");
  long kept = call(__NR_fcntl, (word)opened, F_DUPFD_CLOEXEC, 10, 0, 0);
  call(__NR_close, (word)opened, 0, 0, 0, 0);
  if (kept < 0 || call(__NR_fcntl, (word)kept, F_SETLK, (word)&lock, 0, 0) != 0)
    fail(path, " can't be locked: stop this instance, and start it again.\n");
  return kept;
}

/* Keep nothing that others may wait for or could take: streams, descriptors but two, rights. */
static void strip(unsigned one, unsigned other) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
  call(__NR_capset, (word)&header, (word)none, 0, 0, 0);
  close_range(0, 2);
  close_range(3, (one < other ? one : other) - 1);
  close_range((one < other ? one : other) + 1, (one < other ? other : one) - 1);
  close_range((one < other ? other : one) + 1, ~0u);
}

static __attribute__((noreturn)) void init(char **words, char **environment) {
  unsigned pipe = number(words[2]);
  int status = 0;
  word child = 1ul << (SIGCHLD - 1), mask[2] = {child, 0};
  struct flock program_lock = {.l_type = F_UNLCK, .l_start = 1, .l_len = 1};
  int is_first = call(__NR_getpid, 0, 0, 0, 0, 0) == 1;

  be_called_bubblewrap();
  char **program_words = fetch(words + 6);
  call(__NR_fcntl, pipe, F_SETFD, FD_CLOEXEC, 0, 0);
  /* a program of the same user could trace it otherwise */
  call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (!is_first) call(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  keep_apart();
  bound_rights();
  check(words[5]);
  unsigned lock = (unsigned)take(words[3]);
  struct poll ends[2] = {{(int)pipe, 0, 0}, {-1, POLLIN, 0}};
  call(__NR_ppoll, (word)ends, 1, (word)(word[4]){0}, 0, 0);
  if (ends[0].happened & POLLERR) leave(KILLED + SIGKILL);

  long program = fork();
  if (program < 0) fail(*program_words, " can't be started: there are too many processes.\n");
  if (program == 0) become(words[4], *program_words, program_words, environment);
  strip(pipe, lock);
  set_action(SIGPIPE, SIG_IGN);
  call(__NR_rt_sigprocmask, SIG_BLOCK, (word)mask, 0, 8, 0);
  ends[1].descriptor = (int)call(__NR_signalfd4, (word)-1, (word)mask, 8, O_CLOEXEC, 0);

  for (long ended;;) {
    while ((ended = wait_for(-1, &status, WNOHANG)) > 0 && ended != program)
      ;
    if (ended == program || ended < 0) break;
    call(__NR_ppoll, (word)ends, 2, 0, 0, 0);
    if (ends[0].happened & POLLERR) {
      if (is_first) leave(KILLED + SIGKILL);
      ends[0].descriptor = -1;
    }
    if (ends[1].happened & POLLIN) {
      char news[128]; /* a struct signalfd_siginfo */
      call(__NR_read, (word)ends[1].descriptor, (word)news, sizeof news, 0, 0);
    }
  }
  unsigned char code = (unsigned char)exit_code(status);
  call(__NR_fcntl, lock, F_SETLK, (word)&program_lock, 0, 0);
  call(__NR_write, pipe, (word)&code, 1, 0, 0);
  call(__NR_close, pipe, 0, 0, 0, 0);
  while (wait_for(-1, &status, 0) > 0)
    ;
  leave(0);
}

static int is(const char *text, const char *other) {
  while (*text && *text == *other) text++, other++;
  return *text == *other;
}

__attribute__((noreturn)) void begin(word *stack) {
  word count = stack[0];
  char **words = (char **)(stack + 1), **environment = words + count + 1;
  if (count > 5 && is(words[1], "monitor")) monitor(words, environment);
  if (count > 6 && is(words[1], "init")) init(words, environment);
  if (count > 4 && is(words[1], "exec")) {
    keep_apart();
    become(words[2], words[3], words + 4, environment);
  }
  fail("entry", " is not for users: fimd starts programs by it.\n");
}
