import type { VddkSettings } from './vddk/vddk-settings.ts';
import type { ServerTrust } from './vim25/trusted-agent.ts';
import { VimSession } from './vim25/vim-session.ts';
import type { ServerAddress } from './vim25/vim-transport.ts';

/** A vCenter or a stand-alone ESXi host: how it is reached, and how its disks are read. */
export interface VsphereServer {
  readonly name: string;
  readonly address: ServerAddress;
  readonly user: string;
  readonly password: { reveal(): string };
  readonly trust: ServerTrust;
  readonly proxy: { reveal(): string } | null;
  readonly vddk: VddkSettings;
}

/** A virtual machine of vSphere, and what is to be taken of it. */
export interface VsphereMachine {
  readonly name: string;
  readonly server: VsphereServer;
  /** How it is found: by what never changes, or by where it is (`Datacenter/vm/folder/name`). */
  readonly at: { readonly instanceUuid: string } | { readonly path: string };
  /** Labels of disks that are left out: points are then partial. */
  readonly excludedDisks: readonly string[];
  /** `enable`: changed block tracking is switched on where it is off. */
  readonly tracking: 'enable' | 'leave';
  /** `datastore`: from its datastore over HTTPS, for sites without VDDK. */
  readonly reads: 'vddk' | 'datastore';
  /** No snapshot is taken while a datastore of the machine has less left. */
  readonly datastoreFreeBytesMin: number;
  /** Marks the snapshots of this agent for this machine and this repository, so that nobody else's is touched: 8 hex digits. */
  readonly tag: string;
}

/** Whoever opens it disposes it: logins that are left behind pile up in a vCenter. */
export function openVimSession({ address, user, password, trust, proxy }: VsphereServer): VimSession {
  return new VimSession({ address, user, password, trust, proxy });
}
