/** The disk's bytes are not in one flat file that its datastore hands out: VDDK is needed. */
export class DatastoreUnreadable extends Error {
  readonly code = 'DATASTORE_UNREADABLE';
  override readonly name = 'DatastoreUnreadable';
}
