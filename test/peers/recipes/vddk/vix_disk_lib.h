/* The part of VMware's VDDK interface that nbdkit calls, declared from the API's public documentation for our stand-in. */
#ifndef VIX_DISK_LIB_H
#define VIX_DISK_LIB_H

#include <stdarg.h>
#include <stdint.h>

#define EXPORTED __attribute__ ((visibility ("default")))

typedef uint64_t VixError;
enum {
  VIX_OK = 0,
  VIX_E_FAIL = 1,
  VIX_E_INVALID_ARG = 3,
  VIX_E_FILE_NOT_FOUND = 4,
  VIX_E_NOT_SUPPORTED = 6,
  VIX_E_FILE_ACCESS_ERROR = 13,
  VIX_ASYNC = 25000,
  VIX_E_HOST_USER_PERMISSIONS = 3014,
  VIX_E_HOST_SERVER_REFUSED = 14009,
  VIX_E_CANNOT_CONNECT_HOST = 18000,
};

#define SECTOR_BYTES 512
/* Of QueryAllocatedBlocks: sectors in a chunk, chunks in a call. */
#define CHUNK_SECTORS_MIN 128
#define CHUNKS_MAX (512 * 1024)

typedef void *VixDiskLibConnection;
typedef void *VixDiskLibHandle;
typedef void (VixDiskLibGenericLogFunc) (const char *format, va_list arguments);
typedef void (*VixDiskLibCompletionCB) (void *data, VixError result);

typedef enum { VIXDISKLIB_CRED_UID = 1, VIXDISKLIB_CRED_SESSIONID = 2 } VixDiskLibCredType;

typedef struct {
  char *vmxSpec;
  char *serverName;
  char *thumbPrint;
  long privateUse;
  VixDiskLibCredType credType;
  union {
    struct { char *userName, *password; } uid;
    struct { char *cookie, *userName, *key; } sessionId;
  } creds;
  uint32_t port;
  uint32_t nfcHostPort;
  char *vimApiVer;
  char reserved[8];
  void *state;
  struct { char *id, *datastoreMoRef, *ssId; } vStorageObjSpec;
  int specType;
} VixDiskLibConnectParams;

typedef struct { uint32_t cylinders, heads, sectors; } VixDiskLibGeometry;

typedef struct {
  VixDiskLibGeometry biosGeo;
  VixDiskLibGeometry physGeo;
  uint64_t capacity; /* sectors */
  int adapterType;
  int numLinks;
  char *parentFileNameHint;
  char *uuid;
  uint32_t logicalSectorSize;
  uint32_t physicalSectorSize;
} VixDiskLibInfo;

typedef struct { uint64_t offset, length; } VixDiskLibBlock; /* sectors */
typedef struct { uint32_t numBlocks; VixDiskLibBlock blocks[1]; } VixDiskLibBlockList;

#endif
