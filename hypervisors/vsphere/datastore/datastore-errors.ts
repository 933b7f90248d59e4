/** The disk's bytes are not in one flat file that its datastore hands out: VDDK is needed. */
export class DatastoreUnreadable extends Error {
  readonly code = 'DATASTORE_UNREADABLE';
  override readonly name = 'DatastoreUnreadable';
}
/** A datastore takes no file: it is full, can't be reached by its hosts, or is of a kind that files can't be put on. */
export class DatastoreUnwritable extends Error {
  readonly code = 'DATASTORE_UNWRITABLE';
  override readonly name = 'DatastoreUnwritable';
}
