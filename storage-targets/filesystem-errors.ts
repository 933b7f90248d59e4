import {
  AccessDenied,
  BucketNotFound,
  NameInvalid,
  ObjectNotFound,
  QuotaExceeded,
  RequestRefused,
  StoreUnavailable,
  Unsupported,
} from './errors.ts';

/** Which object of which directory an operation was about, for the message. */
export interface Where {
  readonly directory: string;
  readonly name: string;
  readonly doing: string;
}

/** Translates an errno of Node's file calls; anything that is not one passes through untouched. */
export function filesystemError(error: unknown, where: Where): unknown {
  const errno = errnoOf(error);
  if (errno === null) return error;
  const at = `${where.name || 'the directory'} in ${where.directory}: ${where.doing} failed with ${errno}`;
  const because = { cause: error };
  switch (errno) {
    case 'ENOENT':
      return new ObjectNotFound(at, because);
    case 'ENOTDIR':
      return new RequestRefused(`${at}: a part of the name is an object, not a folder`, because);
    case 'ENOSPC':
    case 'EDQUOT':
      return new QuotaExceeded(`${at}: free or add space there`, because);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new AccessDenied(`${at}: give this process's user access, or mount it writable`, because);
    case 'ENAMETOOLONG':
    case 'EINVAL':
      return new NameInvalid(`${at}: this file system cannot hold that name`, because);
    case 'ENOTSUP':
    case 'EOPNOTSUPP':
    case 'ENOSYS':
    case 'EXDEV':
    case 'EMLINK':
      return new Unsupported(`${at}: the directory must be on one file system that has hard links`, because);
    default:
      return new StoreUnavailable(at, because);
  }
}

export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return null;
  return typeof error.code === 'string' ? error.code : null;
}

export function directoryMissing(directory: string, cause: unknown): BucketNotFound {
  return new BucketNotFound(`${directory} is not there, or is no directory: create it, or mount the share it is on`, {
    cause,
  });
}
