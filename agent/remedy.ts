/** What the process says to whoever started it. Documented in docs/operations/exit-codes.md. */
export const exitCodes = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  source: 3,
  store: 4,
  keys: 5,
  replica: 6,
  damage: 7,
  overwrite: 8,
  drill: 9,
  interrupted: 130,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export interface Remedy {
  readonly exitCode: ExitCode;
  /** `retry`: the same again may succeed. `resync`: the disk is read in full. `stop`: a person has to act first. */
  readonly action: 'retry' | 'resync' | 'stop';
  /** What the operator can do, in one sentence. */
  readonly hint: string;
}

/** Each named error's remedy, by its `code`. The one place that decides what an error leads to. */
const remedies: Readonly<Record<string, Remedy>> = {
  INTERRUPTED: retry('interrupted', 'run the same command again: it goes on where it stopped'),

  CONFIG_INVALID: stop('usage', 'correct the configuration, then try it with: failkit config check'),
  CONFIG_NOT_FOUND: stop(
    'usage',
    'name the configuration with --config; new here? the quick start of the README has one to begin with',
  ),
  MACHINE_UNKNOWN: stop('usage', 'give a name as it stands under machines in the configuration, or none for all'),
  LOG_FILE_UNUSABLE: stop('usage', 'make the folder, or change logging.file'),
  FINGERPRINT_MALFORMED: stop('usage', 'copy the root fingerprint again, whole, from the recovery kit'),

  SOURCE_NOT_FOUND: stop('source', 'check the machine in the configuration and on its hypervisor'),
  SOURCE_CHANGED: retry('source', 'replicate while the machine is off or from a storage snapshot'),
  SOURCE_UNREADABLE: retry('source', 'check the disk and the log of the host that it is read from'),
  CHANGE_TRACKING_LOST: resync('source', 'nothing to do: the next run reads the whole disk again'),
  SPOT_CHECK_MISMATCH: resync(
    'source',
    'find out what wrote past the tracking; the whole disk is read again by itself',
  ),
  QUIESCE_UNAVAILABLE: stop('source', 'set quiesce to prefer, or make the guest agent work'),

  QMP_UNREACHABLE: retry('source', "start the machine, or correct the path of QEMU's monitor"),
  QMP_REFUSED: stop('source', 'see what QEMU says; failkit doctor looks at the machine'),
  QMP_LOST: retry('source', 'see whether QEMU still runs; the next run cleans up what this one left in it'),
  SNAPSHOT_LOST: retry('source', "see who ended QEMU's jobs, then run again"),
  SCRATCH_FULL: retry('source', 'make room in the scratch folder, or name a larger one'),
  MACHINE_BUSY: retry('source', "wait for the other job on the machine's disks, or end it"),
  GUEST_AGENT_FAILED: retry('source', 'see whether qemu-guest-agent runs in the guest'),
  GUEST_STILL_FROZEN: stop('source', 'thaw the guest by hand (guest-fsfreeze-thaw), or reset the machine'),

  VIRSH_MISSING: stop('source', 'install libvirt-clients on this host'),
  LIBVIRT_UNREACHABLE: retry(
    'source',
    'see whether libvirtd runs, and whether this user may use it: virsh -c ADDRESS list',
  ),
  LIBVIRT_REFUSED: stop('source', 'see what libvirt says; failkit doctor looks at the machine'),
  LIBVIRT_TIMED_OUT: retry('source', 'see what libvirtd is at; the next run cleans up what this one left'),
  LIBVIRT_OUTPUT_INVALID: stop('source', 'report this with the output of virsh version'),
  MACHINE_NOT_RUNNING: stop('source', 'start the machine, or name its images in a source of type image'),
  SNAPSHOT_INCOMPLETE: retry('source', 'run failkit resync, which reads the disks in full'),

  VSPHERE_UNREACHABLE: retry('source', 'check the address, the network, the proxy, and that vCenter has started'),
  VSPHERE_UNTRUSTED: stop(
    'source',
    'find out why before you trust it: when the certificate was exchanged on purpose, correct thumbprint or caFile',
  ),
  VSPHERE_LOGIN_REFUSED: stop('source', 'check user and password of the source, and that the account is not locked'),
  VSPHERE_DENIED: stop('source', 'give the account the privileges that failkit doctor lists, on the machine'),
  VSPHERE_TIMED_OUT: retry('source', 'see what vCenter is at; the next run cleans up what this one left'),
  VSPHERE_ANSWER_INVALID: stop('source', 'report this with the version of vCenter and ESXi'),
  VSPHERE_REQUEST_INVALID: stop('usage', 'take the control character out of the name or the password'),
  VSPHERE_REFUSED: stop('source', 'see what vSphere says; failkit doctor looks at the machine'),
  VSPHERE_BUSY: retry('source', 'wait for the other task at the machine, or end it'),
  VSPHERE_SNAPSHOT_STUCK: retry(
    'source',
    'see who holds the files of the machine (another product?), and release them',
  ),
  VSPHERE_SNAPSHOT_GONE: retry('source', 'leave snapshots that are called failkit-… to failkit; run again'),
  VSPHERE_DATASTORE_FULL: retry('source', 'make room on the datastore, or lower datastoreFreeMiBMin of the machine'),
  MACHINE_UNUSABLE: stop('source', 'do what the message says, or protect the machine in another way'),
  NBDKIT_MISSING: stop('source', 'install nbdkit and nbdkit-plugin-vddk, 1.42 or newer, on this host'),
  VDDK_MISSING: stop('source', "unpack VMware's VDDK, and name its folder as vddk.libdir"),
  VDDK_UNSUITABLE: stop('source', 'use VDDK 8 for 64-bit Linux, or link its library as the message says'),
  VDDK_TRANSPORT_MISSING: stop('source', 'set vddk.transports to what this VDDK has: failkit doctor lists it'),
  VDDK_LOGIN_REFUSED: stop(
    'source',
    "check the password and the role's privileges: docs/operations/vsphere-data-path.md",
  ),
  VDDK_THUMBPRINT_REFUSED: stop(
    'source',
    'check vddk.thumbprintHash, and that nothing between here and vSphere breaks TLS open',
  ),
  VDDK_HOST_UNREACHABLE: retry('source', 'open port 902 from this host to every ESXi host that may serve the disk'),
  VDDK_FAILED: retry('source', 'see what VDDK says; docs/operations/vsphere-data-path.md explains its numbers'),
  VSPHERE_PLACE_INVALID: stop('usage', 'name a datastore, folder, pool or network as the message lists them'),
  VSPHERE_NAME_TAKEN: stop('overwrite', 'choose another --name; nothing at vSphere is ever overwritten'),
  CONFIGURATION_UNUSABLE: stop('source', 'restore to files, and create the machine by hand with them'),
  DATASTORE_UNWRITABLE: stop(
    'source',
    'make room, or name another --datastore; the same restore goes on where it stopped',
  ),
  DATASTORE_UNREADABLE: stop('source', 'read this machine through VDDK: set reads to vddk'),

  HYPERV_UNREACHABLE: retry('source', 'run the agent on the Hyper-V host itself, with PowerShell 5.1; see its log'),
  HYPERV_UNTRUSTED: stop(
    'source',
    'find out why before you trust it: when the host has a new key on purpose, correct hostKey',
  ),
  HYPERV_TIMED_OUT: retry('source', 'see what Hyper-V is at; the next run cleans up what this one left'),
  HYPERV_ANSWER_INVALID: stop('source', 'report this with the version of Windows'),
  HYPERV_REFUSED: stop('source', 'see what Hyper-V says; failkit doctor looks at the machine'),
  HYPERV_BUSY: retry('source', 'wait for whoever else is at the machine, or end it'),
  HYPERV_ELSEWHERE: stop('source', 'run it on the node that has the machine'),
  HYPERV_MACHINE_UNUSABLE: stop('source', 'do what the message says, or protect the machine in another way'),
  HYPERV_VOLUME_FULL: retry('source', 'make room on the volume, or lower volumeFreeMiBMin of the machine'),
  HYPERV_SNAPSHOT_STUCK: retry('source', 'see docs/operations/hyperv.md: stuck checkpoints'),
  HYPERV_SNAPSHOT_GONE: retry('source', 'leave checkpoints that are called failkit-… to failkit; run again'),
  HYPERV_JOURNAL_UNUSABLE: stop('source', 'make the folder writable for the agent, or bring the file back'),

  QEMU_TOOL_FAILED: stop('source', 'install qemu-utils (qemu-nbd, qemu-img), or see what it says of the image'),
  IMAGE_CORRUPT: stop('source', 'take the image from where it is whole; qemu-img check or Windows may say more of it'),
  IMAGE_UNSUPPORTED: stop('source', 'convert the image into one that is read here: the message says what is not'),
  IMAGE_PARENT_MISSING: stop('source', 'put the parent image back beside its child, or where the child says it is'),
  IMAGE_PARENT_MISMATCH: stop(
    'source',
    'bring back the parent as it was: nobody may write to it while it has children',
  ),
  NBD_URI_INVALID: stop('usage', 'correct the NBD URI'),
  NBD_UNREACHABLE: retry('source', 'check the address of the NBD server, and that it runs'),
  NBD_TLS_UNTRUSTED: stop('source', 'give the certificate authority of the NBD server, and what it knows us by'),
  NBD_EXPORT_REFUSED: stop('source', "check the export's name and the NBD server's own policy"),
  NBD_UNSUPPORTED: stop('source', 'serve the disk so that the NBD server can do it, or ask for less'),
  NBD_CONNECTION_LOST: retry('source', 'check the NBD server, its log and the network'),
  NBD_TIMED_OUT: retry('source', 'check the NBD server and the storage behind it'),
  NBD_LISTEN_FAILED: stop('usage', 'name another socket or address for the NBD server, or give it a certificate'),
  NBD_REQUEST_FAILED: retry('source', "see the NBD server's log: its storage refused"),
  NBD_PROTOCOL_VIOLATION: stop('source', 'update the NBD server, or report this with its version'),

  ACCESS_DENIED: stop('store', 'check the credentials and the permissions of the bucket'),
  BUCKET_NOT_FOUND: stop('store', 'check repository.bucket, or make the bucket'),
  WRONG_REGION: stop('store', 'correct repository.region'),
  STORE_CONFLICT: retry('store', 'run the command again'),
  STORE_THROTTLED: retry('store', 'wait, or lower limits.inFlight'),
  STORE_UNAVAILABLE: retry('store', 'check the network, the proxy and the state of the store'),
  CHECKSUM_REFUSED: retry('store', 'bytes were altered on the way: check proxies, network and memory of this host'),
  IMMUTABILITY_NOT_EXTENDED: retry(
    'store',
    'the point is there; see why its objects could not be locked for longer (a permission of its own), and run again',
  ),
  IMMUTABLE: stop('store', 'wait: object lock protects it until its date'),
  ARCHIVED: stop('store', 'ask the store to restore the object from its archive tier first'),
  QUOTA_EXCEEDED: stop('store', 'make room or raise the quota'),
  CLOCK_SKEWED: stop('store', 'set the clock of this host'),
  UNSUPPORTED: stop('store', 'this store can not do it: use one that can, or change the configuration'),
  TLS_UNTRUSTED: stop('store', "give the store's certificate authority as caFile"),
  STORE_NOT_ATOMIC: stop('store', 'use another store: on this one two agents could overwrite each other'),
  REQUEST_REFUSED: stop('store', "look up the store's own words, which are in the message, or ask who runs it"),

  KEY_REFUSED: stop('keys', "check the key's state and policy, and that this repository belongs to that key"),
  KEY_DENIED: stop('keys', 'check the credentials for the key service, and what they may do with this key'),
  KEY_DISABLED: stop('keys', 'enable the key in the key service, or read with the recovery key'),
  KEY_PENDING_DELETION: stop('keys', 'cancel the deletion of the key at once, or read with the recovery key'),
  KEY_NOT_FOUND: stop('keys', 'correct the name of the key, or where it is looked for, under keys'),
  KEY_WRONG: stop('keys', 'configure the key that failkit keys list names, or read with the recovery key'),
  KEY_WRAP_MISMATCH: stop(
    'keys',
    'see failkit keys list, and compare with failkit verify --chain; or read with the recovery key',
  ),
  KEY_CLOCK_SKEWED: stop('keys', 'set the clock of this host'),
  KEY_SERVICE_THROTTLED: retry('keys', 'wait; where it lasts, raise the request limit of the key service'),
  KEY_SERVICE_UNTRUSTED: stop(
    'keys',
    "give the key service's certificate authority as caFile, or find out who answers",
  ),
  KEY_SERVICE_UNAVAILABLE: retry('keys', 'check the network and the state of the key service'),
  KEY_FILE_UNUSABLE: stop('keys', 'correct the path or the file: its owner alone may read it, and it is copied whole'),

  FENCED: stop(
    'replica',
    'another agent took the machine over: stop one of the two, and give each its own state folder',
  ),
  FLAGS_UNKNOWN: stop('keys', 'prune on a host that may open the points, or on the one that published them'),
  AGENT_NOT_TRUSTED: stop('replica', 'certify the agent key with the root key: failkit root certify'),
  ROOT_MISMATCH: stop(
    'replica',
    'this is another repository, or its root key was exchanged: compare with the recovery kit',
  ),
  REPLICA_FORKED: stop('replica', 'two copies of the bucket went different ways: find out which one is yours'),
  REPLICA_ROLLED_BACK: stop(
    'replica',
    'newer entries were removed from the bucket: look at its access log and versions',
  ),
  REPLICA_NOT_FOUND: stop('replica', 'check the name of the machine, or seed it first: failkit seed'),
  REPOSITORY_NOT_FOUND: stop('replica', 'check repository in the configuration, or begin with: failkit init'),

  REPOSITORY_EXISTS: stop('replica', 'use the repository that is there, or another bucket, prefix or directory'),
  TRUST_RACED: retry('replica', 'look at the trust in force with failkit root show, then run the command again'),
  MACHINE_AMBIGUOUS: stop('replica', 'give the id instead of the name'),
  TAKE_OVER_NEEDED: stop('replica', 'make sure that no other host protects this machine any more'),
  TENURE_OVER: retry('replica', 'start the run again: it opens a tenure of its own'),
  WRONG_VERB: stop('usage', 'seed is for the first copy of a machine, sync and resync for those after it'),
  HEAD_MALFORMED: stop('usage', 'copy the head as failkit points printed it'),
  POINT_MALFORMED: stop('usage', 'see what there is with failkit points'),
  KIT_EXISTS: stop('overwrite', 'name a folder that does not exist yet'),
  STATE_BUSY: retry('replica', 'wait for the other run to end, or stop it'),
  STATE_DISK_FULL: stop('replica', 'make room on the disk of the state folder; nothing that was published is lost'),
  STATE_UNUSABLE: stop(
    'replica',
    'nothing that was published is lost: correct state in the configuration, or the folder',
  ),

  CHAIN_BROKEN: damagedHistory(),
  CONTENT_MISMATCH: damaged(),
  TRUST_BROKEN: damagedHistory(),
  CHAIN_INVALID: damagedHistory(),
  COMMITMENT_MISMATCH: damaged(),
  CONTROL_TAMPERED: damagedHistory(),
  FORMAT_INVALID: damagedHistory(),
  OBJECT_ALTERED: damaged(),
  OBJECT_NOT_FOUND: damaged(),
  PAGE_REPLACED: damaged(),
  RANGE_INVALID: damaged(),
  RECORD_TAMPERED: damaged(),
  SEGMENT_MISPLACED: damaged(),
  SIGNATURE_INVALID: damagedHistory(),

  OUTPUT_EXISTS: stop('overwrite', 'name another output, or say --force where the command has it'),
  DEFINITION_IMPOSSIBLE: stop('usage', 'restore without it: disks and attachments are whole in any case'),
  OUTPUT_UNUSABLE: stop('source', 'make room or correct the path; the same restore goes on where it stopped'),
  DISK_TOO_LARGE: stop('source', 'spread its content over smaller disks, or leave the disk out'),

  DRILL_HOST_UNFIT: stop('source', 'a drill needs qemu-system-x86 and qemu-utils, ovmf for UEFI, and room in --work'),
  DRILL_OPTION_INVALID: stop('usage', 'correct the options; failkit drill --help shows them all'),

  OBJECT_EXISTS: stop('overwrite', 'run the command again; nothing in a replica is ever overwritten'),
  NAME_INVALID: stop('unexpected', 'this is a defect of failkit: please report it'),
};

/** Null for an error that has no name of ours: a bug, or something nobody foresaw. */
export function remedyFor(error: unknown): Remedy | null {
  const code = codeOf(error);
  return code === null ? null : remedyOf(code);
}

/** The same where only the code was kept. */
export function remedyOf(code: string): Remedy | null {
  return Object.hasOwn(remedies, code) ? (remedies[code] ?? null) : null;
}

export function codeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
}

export function codesWithRemedy(): readonly string[] {
  return Object.keys(remedies);
}

function stop(kind: keyof typeof exitCodes, hint: string): Remedy {
  return { exitCode: exitCodes[kind], action: 'stop', hint };
}

function retry(kind: keyof typeof exitCodes, hint: string): Remedy {
  return { exitCode: exitCodes[kind], action: 'retry', hint };
}

function resync(kind: keyof typeof exitCodes, hint: string): Remedy {
  return { exitCode: exitCodes[kind], action: 'resync', hint };
}

function damagedHistory(): Remedy {
  return stop('damage', 'run failkit verify to see what is hurt; with --salvage, points and restore read around it');
}

function damaged(): Remedy {
  return stop('damage', 'run failkit verify to see which recovery points are hurt; the next sync re-sends what it can');
}
