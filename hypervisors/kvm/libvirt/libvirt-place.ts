import { LibvirtUnreachable } from './libvirt-errors.ts';

/** Where the host of a libvirt address is, seen from here. https://libvirt.org/uri.html */
export type LibvirtPlace = { readonly kind: 'here' } | SshPlace;

export interface SshPlace {
  readonly kind: 'ssh';
  readonly host: string;
  readonly user: string | null;
  readonly port: number | null;
  /** As libvirt takes them from the same address: another program than `ssh`, and another key than the user's own. */
  readonly command: string | null;
  readonly keyFile: string | null;
}

/** Throws LibvirtUnreachable for a transport over which no disk can be read. */
export function placeOf(uri: string): LibvirtPlace {
  const url = URL.parse(uri);
  const [driver, transport] = (url?.protocol ?? '').replace(/:$/, '').split('+');
  if (url === null || driver !== 'qemu')
    throw new LibvirtUnreachable(
      `${uri} is no address of QEMU's libvirt: write qemu:///system or qemu+ssh://host/system`,
    );
  if (url.hostname === '') return { kind: 'here' };
  if (transport !== 'ssh')
    throw new LibvirtUnreachable(
      `${uri}: the disks of a machine on another host are read through ssh: write qemu+ssh://${url.hostname}${url.pathname}`,
    );
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return {
    kind: 'ssh',
    host,
    user: url.username === '' ? null : decodeURIComponent(url.username),
    port: url.port === '' ? null : Number(url.port),
    command: url.searchParams.get('command'),
    keyFile: url.searchParams.get('keyfile'),
  };
}
