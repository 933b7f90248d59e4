import type { ServerTrust } from './vim25/trusted-agent.ts';
import type { ServerAddress } from './vim25/vim-transport.ts';

/** A vCenter or a stand-alone ESXi host: how it is reached. */
export interface VsphereServer {
  readonly name: string;
  readonly address: ServerAddress;
  readonly user: string;
  readonly password: { reveal(): string };
  readonly trust: ServerTrust;
  readonly proxy: { reveal(): string } | null;
}

/** A virtual machine of vSphere, and what is to be taken of it. */
export interface VsphereMachine {
  readonly name: string;
  readonly server: VsphereServer;
  /** How it is found: by what never changes, or by where it is (`Datacenter/vm/folder/name`). */
  readonly at: { readonly instanceUuid: string } | { readonly path: string };
  /** Labels of disks that are left out: points are then partial. */
  readonly excludedDisks: readonly string[];
}
