/* A stand-in for VMware's libvixDiskLib: it serves the copies that our vcsim makes of disks, one for each snapshot.
 *
 * LIBDIR/stand-in.conf has a KEY=VALUE on each line:
 *   root=FOLDER            FOLDER/SNAPSHOT/PATH is what "[datastore] PATH" held when the snapshot was made
 *   user= password= thumbprint=   what must be given
 *   transports=nbdssl:nbd  what a disk can be opened with
 *   log=FILE               gets a line for each call that matters
 *   reachable=no           the host's port does not answer
 *   read-latency-us=N      of each read
 *   fail-read=N            the Nth read of each open disk fails
 *   fail-once=FILE         only where this file is not there yet, which is made then
 * The disk of a machine without a snapshot can't be opened, and no read may be larger than a host's NFC server allows. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vix_disk_lib.h"

#define READ_BYTES_MAX (23 * 1024 * 1024)
#define IN_FLIGHT_MAX 64

static char settings[8192];
static VixDiskLibGenericLogFunc *log_to_caller;

/* Copies the value into `into`, and returns it; empty where the key is missing. */
static const char *setting (const char *key, char *into, size_t size)
{
  size_t length = strlen (key);
  into[0] = '\0';
  for (const char *line = settings; line != NULL && *line != '\0'; line = strchr (line, '\n') ? strchr (line, '\n') + 1 : NULL)
    if (strncmp (line, key, length) == 0 && line[length] == '=') {
      snprintf (into, size, "%.*s", (int) strcspn (line + length + 1, "\n"), line + length + 1);
      break;
    }
  return into;
}

static int is_set (const char *key, const char *value)
{
  char expected[1024];
  setting (key, expected, sizeof expected);
  return expected[0] == '\0' || (value != NULL && strcmp (expected, value) == 0);
}

static long number (const char *key)
{
  char text[64];
  return atol (setting (key, text, sizeof text));
}

static void note (const char *format, ...)
{
  char path[1024], line[2048];
  va_list arguments;
  va_start (arguments, format);
  int length = vsnprintf (line, sizeof line - 1, format, arguments);
  va_end (arguments);
  if (setting ("log", path, sizeof path)[0] == '\0' || length < 0)
    return;
  int fd = open (path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  line[length] = '\n';
  if (fd >= 0 && write (fd, line, length + 1) < 0)
    perror (path);
  if (fd >= 0)
    close (fd);
}

/* VDDK writes the number and the words of what went wrong into its log. */
static void say (const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  if (log_to_caller != NULL)
    log_to_caller (format, arguments);
  va_end (arguments);
}

static const char *words (VixError error)
{
  switch (error & 0xffff) {
  case VIX_OK: return "The operation was successful";
  case VIX_E_INVALID_ARG: return "One of the parameters was invalid";
  case VIX_E_FILE_NOT_FOUND: return "A file was not found";
  case VIX_E_NOT_SUPPORTED: return "The operation is not supported";
  case VIX_E_FILE_ACCESS_ERROR: return "You do not have access rights to this file";
  case VIX_E_HOST_USER_PERMISSIONS: return "Insufficient permissions in the host operating system";
  case VIX_E_HOST_SERVER_REFUSED: return "The server refused connection";
  case VIX_E_CANNOT_CONNECT_HOST: return "Cannot connect to host";
  default: return "Unknown error";
  }
}

static VixError refuse (const char *what, VixError error)
{
  note ("refused %s: %lu", what, (unsigned long) error);
  say ("VixDiskLib: %s. Error %lu (%s) at 5510.\n", what, (unsigned long) error, words (error));
  return error;
}

EXPORTED VixError VixDiskLib_InitEx (uint32_t major, uint32_t minor, VixDiskLibGenericLogFunc *log, VixDiskLibGenericLogFunc *warn,
                                     VixDiskLibGenericLogFunc *panic, const char *libDir, const char *configFile)
{
  char path[4096];
  (void) warn, (void) panic;
  log_to_caller = log;
  snprintf (path, sizeof path, "%s/stand-in.conf", libDir);
  FILE *file = fopen (path, "re");
  if (file != NULL) {
    settings[fread (settings, 1, sizeof settings - 1, file)] = '\0';
    fclose (file);
  }
  note ("init %u.%u config=%s", major, minor, configFile ? configFile : "");
  return VIX_OK;
}

EXPORTED void VixDiskLib_Exit (void)
{
  note ("exit");
}

EXPORTED char *VixDiskLib_GetErrorText (VixError error, const char *locale)
{
  (void) locale;
  return strdup (words (error));
}

EXPORTED void VixDiskLib_FreeErrorText (char *text)
{
  free (text);
}

EXPORTED const char *VixDiskLib_ListTransportModes (void)
{
  static char transports[256];
  return setting ("transports", transports, sizeof transports)[0] ? transports : "file:nbdssl:nbd";
}

EXPORTED VixDiskLibConnectParams *VixDiskLib_AllocateConnectParams (void)
{
  return calloc (1, sizeof (VixDiskLibConnectParams));
}

EXPORTED void VixDiskLib_FreeConnectParams (VixDiskLibConnectParams *params)
{
  free (params);
}

struct connection {
  char snapshot[256];
  char transport[64];
};

/* The first of the wanted ones that can be had, as VDDK picks it. */
static int pick_transport (const char *wanted, char *into, size_t size)
{
  char list[256], *rest = list, *one;
  snprintf (list, sizeof list, "%s", wanted ? wanted : "nbdssl");
  while ((one = strsep (&rest, ":")) != NULL) {
    char here[300], all[300];
    snprintf (here, sizeof here, ":%s:", one);
    snprintf (all, sizeof all, ":%s:", VixDiskLib_ListTransportModes ());
    if (strstr (all, here) != NULL) {
      snprintf (into, size, "%s", one);
      return 1;
    }
  }
  return 0;
}

EXPORTED VixError VixDiskLib_ConnectEx (const VixDiskLibConnectParams *params, char readOnly, const char *snapshot,
                                        const char *transports, VixDiskLibConnection *connection)
{
  const char *password = params->credType == VIXDISKLIB_CRED_UID ? params->creds.uid.password : "";
  const char *user = params->credType == VIXDISKLIB_CRED_UID ? params->creds.uid.userName : "";
  note ("connect server=%s port=%u vm=%s user=%s thumbprint=%s snapshot=%s read-only=%d transports=%s",
        params->serverName ? params->serverName : "", params->port, params->vmxSpec ? params->vmxSpec : "", user,
        params->thumbPrint ? params->thumbPrint : "", snapshot ? snapshot : "", readOnly, transports ? transports : "");
  if (!is_set ("thumbprint", params->thumbPrint)) {
    say ("VixDiskLibVim: the certificate's thumbprint is another one\n");
    return refuse ("VixDiskLib_ConnectEx: Cannot connect", VIX_E_CANNOT_CONNECT_HOST);
  }
  if (!is_set ("user", user) || !is_set ("password", password))
    return refuse ("VixDiskLib_ConnectEx: Login failed", VIX_E_HOST_USER_PERMISSIONS);
  struct connection *made = calloc (1, sizeof *made);
  snprintf (made->snapshot, sizeof made->snapshot, "%s", snapshot ? snapshot : "");
  if (!pick_transport (transports, made->transport, sizeof made->transport)) {
    free (made);
    return refuse ("VixDiskLib_ConnectEx: no transport", VIX_E_NOT_SUPPORTED);
  }
  *connection = made;
  return VIX_OK;
}

EXPORTED VixError VixDiskLib_Disconnect (VixDiskLibConnection connection)
{
  free (connection);
  return VIX_OK;
}

struct job {
  uint64_t sector, sectors;
  unsigned char *into;
  VixDiskLibCompletionCB done;
  void *data;
};

/* An open disk. Asynchronous reads wait in a ring for one thread, as they wait for one NFC connection. */
struct disk {
  int fd;
  uint64_t sectors;
  char transport[64];
  long reads;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct job ring[IN_FLIGHT_MAX];
  unsigned first, count, running;
  int closing;
};

static int may_fail (void)
{
  char marker[1024];
  if (setting ("fail-once", marker, sizeof marker)[0] == '\0')
    return 1;
  int fd = open (marker, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0)
    close (fd);
  return fd >= 0;
}

static VixError read_now (struct disk *disk, uint64_t sector, uint64_t sectors, unsigned char *into)
{
  long latency = number ("read-latency-us"), fails = number ("fail-read");
  if (latency > 0)
    usleep (latency);
  if (sector + sectors > disk->sectors)
    return VIX_E_INVALID_ARG;
  if (sectors * SECTOR_BYTES > READ_BYTES_MAX)
    return refuse ("NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to allocate", VIX_E_FAIL);
  if (fails > 0 && __sync_add_and_fetch (&disk->reads, 1) == fails && may_fail ())
    return refuse ("NfcFssrvr_DiskEx: the connection was lost", VIX_E_FAIL);
  for (uint64_t at = 0; at < sectors * SECTOR_BYTES;) {
    ssize_t got = pread (disk->fd, into + at, sectors * SECTOR_BYTES - at, sector * SECTOR_BYTES + at);
    if (got <= 0)
      return VIX_E_FAIL;
    at += got;
  }
  return VIX_OK;
}

static void *work (void *opened)
{
  struct disk *disk = opened;
  pthread_mutex_lock (&disk->lock);
  for (;;) {
    while (disk->count == 0 && !disk->closing)
      pthread_cond_wait (&disk->changed, &disk->lock);
    if (disk->count == 0)
      break;
    struct job job = disk->ring[disk->first];
    disk->first = (disk->first + 1) % IN_FLIGHT_MAX;
    disk->count--;
    disk->running = 1;
    pthread_cond_broadcast (&disk->changed);
    pthread_mutex_unlock (&disk->lock);
    job.done (job.data, read_now (disk, job.sector, job.sectors, job.into));
    pthread_mutex_lock (&disk->lock);
    disk->running = 0;
    pthread_cond_broadcast (&disk->changed);
  }
  pthread_mutex_unlock (&disk->lock);
  return NULL;
}

EXPORTED VixError VixDiskLib_Open (const VixDiskLibConnection connection, const char *path, uint32_t flags, VixDiskLibHandle *handle)
{
  const struct connection *from = connection;
  char file[4096], root[1024], reachable[16];
  const char *relative = strstr (path, "] ");
  struct stat status;
  if (strcmp (setting ("reachable", reachable, sizeof reachable), "no") == 0)
    return refuse ("NfcNewAuthdConnectionEx: Failed to connect", VIX_E_HOST_SERVER_REFUSED);
  if (from->snapshot[0] == '\0')
    return refuse ("VixDiskLib_OpenEx: Cannot open disk of a running machine", VIX_E_FILE_ACCESS_ERROR);
  snprintf (file, sizeof file, "%s/%s/%s", setting ("root", root, sizeof root), from->snapshot, relative ? relative + 2 : path);
  note ("open %s flags=%u transport=%s", path, flags, from->transport);
  int fd = open (file, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return refuse ("VixDiskLib_OpenEx: Cannot open disk", VIX_E_FILE_NOT_FOUND);
  if (fstat (fd, &status) < 0) {
    close (fd);
    return refuse ("VixDiskLib_OpenEx: Cannot open disk", VIX_E_FAIL);
  }
  struct disk *disk = calloc (1, sizeof *disk);
  disk->fd = fd;
  disk->sectors = status.st_size / SECTOR_BYTES;
  snprintf (disk->transport, sizeof disk->transport, "%s", from->transport);
  pthread_mutex_init (&disk->lock, NULL);
  pthread_cond_init (&disk->changed, NULL);
  pthread_create (&disk->thread, NULL, work, disk);
  *handle = disk;
  return VIX_OK;
}

EXPORTED const char *VixDiskLib_GetTransportMode (VixDiskLibHandle handle)
{
  return ((struct disk *) handle)->transport;
}

EXPORTED VixError VixDiskLib_Wait (VixDiskLibHandle handle)
{
  struct disk *disk = handle;
  pthread_mutex_lock (&disk->lock);
  while (disk->count > 0 || disk->running)
    pthread_cond_wait (&disk->changed, &disk->lock);
  pthread_mutex_unlock (&disk->lock);
  return VIX_OK;
}

EXPORTED VixError VixDiskLib_Close (VixDiskLibHandle handle)
{
  struct disk *disk = handle;
  pthread_mutex_lock (&disk->lock);
  disk->closing = 1;
  pthread_cond_broadcast (&disk->changed);
  pthread_mutex_unlock (&disk->lock);
  pthread_join (disk->thread, NULL);
  close (disk->fd);
  free (disk);
  note ("close");
  return VIX_OK;
}

EXPORTED VixError VixDiskLib_GetInfo (VixDiskLibHandle handle, VixDiskLibInfo **info)
{
  *info = calloc (1, sizeof **info);
  (*info)->capacity = ((struct disk *) handle)->sectors;
  (*info)->logicalSectorSize = (*info)->physicalSectorSize = SECTOR_BYTES;
  return VIX_OK;
}

EXPORTED void VixDiskLib_FreeInfo (VixDiskLibInfo *info)
{
  free (info);
}

EXPORTED VixError VixDiskLib_Read (VixDiskLibHandle handle, uint64_t sector, uint64_t sectors, unsigned char *into)
{
  return read_now (handle, sector, sectors, into);
}

EXPORTED VixError VixDiskLib_ReadAsync (VixDiskLibHandle handle, uint64_t sector, uint64_t sectors, unsigned char *into,
                                        VixDiskLibCompletionCB done, void *data)
{
  struct disk *disk = handle;
  pthread_mutex_lock (&disk->lock);
  while (disk->count == IN_FLIGHT_MAX)
    pthread_cond_wait (&disk->changed, &disk->lock);
  disk->ring[(disk->first + disk->count) % IN_FLIGHT_MAX] = (struct job) { sector, sectors, into, done, data };
  disk->count++;
  pthread_cond_broadcast (&disk->changed);
  pthread_mutex_unlock (&disk->lock);
  return VIX_ASYNC;
}

static int is_zero (const unsigned char *bytes, size_t length)
{
  return length == 0 || (bytes[0] == 0 && memcmp (bytes, bytes + 1, length - 1) == 0);
}

/* Strict about its arguments, as VDDK is. */
EXPORTED VixError VixDiskLib_QueryAllocatedBlocks (VixDiskLibHandle handle, uint64_t sector, uint64_t sectors, uint64_t chunk,
                                                   VixDiskLibBlockList **list)
{
  struct disk *disk = handle;
  if (chunk < CHUNK_SECTORS_MIN || sector % chunk != 0 || sectors % chunk != 0 || sectors / chunk > CHUNKS_MAX ||
      sector + sectors > disk->sectors)
    return refuse ("VixDiskLib_QueryAllocatedBlocks", VIX_E_INVALID_ARG);
  unsigned char *bytes = malloc (chunk * SECTOR_BYTES);
  VixDiskLibBlockList *found = calloc (1, sizeof *found + sizeof (VixDiskLibBlock) * (sectors / chunk));
  for (uint64_t at = sector; at < sector + sectors; at += chunk) {
    if (pread (disk->fd, bytes, chunk * SECTOR_BYTES, at * SECTOR_BYTES) < 0 || is_zero (bytes, chunk * SECTOR_BYTES))
      continue;
    VixDiskLibBlock *last = found->numBlocks ? &found->blocks[found->numBlocks - 1] : NULL;
    if (last != NULL && last->offset + last->length == at)
      last->length += chunk;
    else
      found->blocks[found->numBlocks++] = (VixDiskLibBlock) { at, chunk };
  }
  free (bytes);
  *list = found;
  return VIX_OK;
}

EXPORTED VixError VixDiskLib_FreeBlockList (VixDiskLibBlockList *list)
{
  free (list);
  return VIX_OK;
}

/* What nbdkit wants to be there, though nobody writes. */
EXPORTED VixError VixDiskLib_Write (VixDiskLibHandle handle, uint64_t sector, uint64_t sectors, const unsigned char *bytes)
{
  (void) handle, (void) sector, (void) sectors, (void) bytes;
  return VIX_E_NOT_SUPPORTED;
}

EXPORTED VixError VixDiskLib_WriteAsync (VixDiskLibHandle handle, uint64_t sector, uint64_t sectors, const unsigned char *bytes,
                                         VixDiskLibCompletionCB done, void *data)
{
  (void) done, (void) data;
  return VixDiskLib_Write (handle, sector, sectors, bytes);
}

EXPORTED VixError VixDiskLib_Flush (VixDiskLibHandle handle)
{
  (void) handle;
  return VIX_OK;
}

EXPORTED VixError VixDiskLib_Create (const VixDiskLibConnection connection, const char *path, const void *params, void *progress,
                                     void *data)
{
  (void) connection, (void) path, (void) params, (void) progress, (void) data;
  return VIX_E_NOT_SUPPORTED;
}
