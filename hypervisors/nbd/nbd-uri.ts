import { NbdUriInvalid } from './nbd-errors.ts';

/** Where an export is, as an NBD URI says it. https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md */
export interface NbdAddress {
  readonly transport:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** Empty: the server's default export. */
  readonly exportName: string;
  /** Whether the connection must be TLS. */
  readonly tls: boolean;
  /** The name that the server's certificate must carry. */
  readonly serverName: string;
}

const defaultPort = 10_809;
/** Linux: sun_path holds 108 bytes, the final NUL included. */
const socketPathBytesMax = 107;
/** NBD_MAX_STRING of the protocol. */
const exportNameBytesMax = 4096;
const schemes: Readonly<Record<string, { readonly tls: boolean; readonly unix: boolean }>> = {
  'nbd:': { tls: false, unix: false },
  'nbds:': { tls: true, unix: false },
  'nbd+unix:': { tls: false, unix: true },
  'nbds+unix:': { tls: true, unix: true },
};
const forms = 'nbd://host[:port]/export, nbds://…, nbd+unix:///export?socket=/path or nbds+unix:///…';

/** Throws NbdUriInvalid. `tls-hostname` is the one parameter of libnbd's that is understood besides `socket`. */
export function parseNbdUri(text: string): NbdAddress {
  const url = URL.parse(text);
  const scheme = url === null ? undefined : schemes[url.protocol];
  if (url === null || scheme === undefined) throw new NbdUriInvalid(`${text} is not an NBD URI: write ${forms}`);
  if (url.username !== '' || url.password !== '')
    throw new NbdUriInvalid(`${withoutLogin(url)}: a user name is for TLS with pre-shared keys: use certificates`);
  if (url.hash !== '') throw new NbdUriInvalid(`${text}: a # must be written as %23`);
  const parameters = parametersOf(text, url, scheme);
  const transport = scheme.unix ? unixSocket(text, url, parameters.socket) : tcp(text, url);
  return {
    transport,
    exportName: exportNameOf(text, url),
    tls: scheme.tls,
    serverName: parameters.serverName ?? (transport.kind === 'tcp' ? transport.host : 'localhost'),
  };
}

/** For messages: a URI without parameters that an error need not repeat. */
export function describeNbdAddress({ transport, exportName, tls }: NbdAddress): string {
  const scheme = tls ? 'nbds' : 'nbd';
  const name = encodeURI(exportName);
  if (transport.kind === 'unix') return `${scheme}+unix:///${name}?socket=${transport.path}`;
  const host = transport.host.includes(':') ? `[${transport.host}]` : transport.host;
  return `${scheme}://${host}:${transport.port}/${name}`;
}

/** What `parseNbdUri` and other programs take. The name for TLS is left to whoever connects. */
export function formatNbdUri({ transport, exportName, tls }: Omit<NbdAddress, 'serverName'>): string {
  const scheme = tls ? 'nbds' : 'nbd';
  const name = encodeURIComponent(exportName);
  if (transport.kind === 'unix') {
    const path = transport.path.split('/').map(encodeURIComponent).join('/');
    return `${scheme}+unix:///${name}?socket=${path}`;
  }
  const host = transport.host.includes(':') ? `[${transport.host}]` : transport.host;
  return `${scheme}://${host}:${transport.port}/${name}`;
}

function parametersOf(text: string, url: URL, scheme: { readonly tls: boolean; readonly unix: boolean }) {
  const known = [...(scheme.unix ? ['socket'] : []), ...(scheme.tls ? ['tls-hostname'] : [])];
  for (const name of new Set(url.searchParams.keys())) {
    if (!known.includes(name))
      throw new NbdUriInvalid(
        `${text}: the parameter ${name} means nothing here; known: ${known.join(', ') || 'none'}`,
      );
    if (url.searchParams.getAll(name).length > 1) throw new NbdUriInvalid(`${text}: ${name} is given twice`);
  }
  // In a URI of ours a + is a plus, as RFC 3986 has it; URLSearchParams would make it a blank.
  const plain = new URLSearchParams(url.search.replaceAll('+', '%2B'));
  return { socket: plain.get('socket'), serverName: plain.get('tls-hostname') || null };
}

function unixSocket(text: string, url: URL, path: string | null): NbdAddress['transport'] {
  if (url.host !== '')
    throw new NbdUriInvalid(`${text}: a unix socket has no host: write nbd+unix:///export?socket=/path`);
  if (path === null || path === '')
    throw new NbdUriInvalid(`${text}: the socket is missing: write nbd+unix:///export?socket=/path`);
  if (path.includes('\0')) throw new NbdUriInvalid(`${text}: the socket's path holds a NUL`);
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new NbdUriInvalid(`${text}: the socket's path is longer than ${socketPathBytesMax} bytes`);
  return { kind: 'unix', path };
}

function tcp(text: string, url: URL): NbdAddress['transport'] {
  const host = decode(text, url.hostname.replace(/^\[(.*)\]$/, '$1'));
  if (host === '') throw new NbdUriInvalid(`${text}: the host is missing: write nbd://host:port/export`);
  const port = url.port === '' ? defaultPort : Number(url.port);
  if (port === 0) throw new NbdUriInvalid(`${text}: port 0 is no port`);
  return { kind: 'tcp', host, port };
}

/** One slash separates it from the host; further ones belong to the name. */
function exportNameOf(text: string, url: URL): string {
  const name = decode(text, url.pathname.replace(/^\//, ''));
  if (Buffer.byteLength(name) > exportNameBytesMax)
    throw new NbdUriInvalid(`${text.slice(0, 100)}…: the export's name is longer than ${exportNameBytesMax} bytes`);
  if (name.includes('\0')) throw new NbdUriInvalid(`${text}: the export's name holds a NUL`);
  return name;
}

function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw new NbdUriInvalid(`${text}: ${part} is not UTF-8 in percent encoding`, { cause });
  }
}

function withoutLogin(url: URL): string {
  return `${url.protocol}//…@${url.host}${url.pathname}`;
}
