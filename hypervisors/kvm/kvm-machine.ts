/** A virtual machine of QEMU: how it is reached, and what is to be taken of it. */
export interface KvmMachine {
  readonly name: string;
  readonly control: QmpControl | LibvirtControl;
  /** A folder of the host that QEMU runs on, where QEMU may write. What the guest overwrites during a run is kept there until its end. */
  readonly scratchFolder: string;
  /** The run ends, and the guest goes on, when the scratch folder's file system has less than this free. */
  readonly scratchFreeBytesMin: number;
  /** Labels of disks that are left out: points are then partial. */
  readonly excludedDisks: readonly string[];
  /** Files captured whole with each point, besides what the hypervisor gives by itself. Each is named after its file. */
  readonly attachments: readonly string[];
  /**
   * Marks what this agent makes inside the hypervisor for this machine and this repository, so that nobody else's is touched:
   * 8 hex digits.
   */
  readonly tag: string;
}

/** QEMU's own monitor, as with `-qmp unix:PATH,server=on,wait=off`. */
export interface QmpControl {
  readonly kind: 'qmp';
  readonly socket: string;
  /** The guest agent's character device, as a unix socket; null: the guest is never frozen. */
  readonly guestAgentSocket: string | null;
}

export interface LibvirtControl {
  readonly kind: 'libvirt';
  /** `qemu:///system`, `qemu+ssh://host/system`, … */
  readonly uri: string;
  /** Name or UUID. */
  readonly domain: string;
}
