/** How VDDK is used on this host. */
export interface VddkSettings {
  /** The program, or its name to be looked for. */
  readonly nbdkit: string;
  /** `vmware-vix-disklib-distrib`, as VMware's archive unpacks to. */
  readonly libdir: string;
  /** VDDK's own list, the best first, as `nbdssl`. */
  readonly transports: string;
  /** Of what goes over the network. */
  readonly compression: 'none' | 'zlib' | 'fastlz' | 'skipz';
  /** Bypasses caches of the host that reads the disk; only some storage likes it. */
  readonly unbuffered: boolean;
  /** The hash that this VDDK knows certificates by. */
  readonly thumbprintHash: 'sha1' | 'sha256';
  /** A configuration file of VDDK's own; null: ours. */
  readonly configFile: string | null;
}
