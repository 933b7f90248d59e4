import { describe, expect, it } from 'vitest';
import { NbdUriInvalid } from '../../../hypervisors/nbd/nbd-errors.ts';
import { describeNbdAddress, parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';

const tcp = (host: string, port = 10809) => ({ kind: 'tcp', host, port });
const unix = (path: string) => ({ kind: 'unix', path });

describe('NBD URIs', () => {
  it.for([
    ['nbd://host', { transport: tcp('host'), exportName: '', tls: false, serverName: 'host' }],
    ['nbd://host/', { transport: tcp('host'), exportName: '' }],
    ['nbd://host:10810/disk', { transport: tcp('host', 10810), exportName: 'disk' }],
    ['nbd://host//two/slashes', { exportName: '/two/slashes' }],
    ['nbd://[::1]:1/x', { transport: tcp('::1', 1), serverName: '::1' }],
    ['nbd://192.0.2.7/x%20y%2Fz%C3%A9', { transport: tcp('192.0.2.7'), exportName: 'x y/zé' }],
    ['NBDS://Host/x', { tls: true }],
    ['nbds://host/x?tls-hostname=other.example', { tls: true, transport: tcp('host'), serverName: 'other.example' }],
    ['nbd+unix:///?socket=/run/a.sock', { transport: unix('/run/a.sock'), exportName: '', tls: false }],
    ['nbd+unix:///disk?socket=%2Frun%2Fa+b', { transport: unix('/run/a+b'), exportName: 'disk' }],
    ['nbd+unix:?socket=/s', { transport: unix('/s'), exportName: '' }],
    ['nbds+unix:///d?socket=/s', { tls: true, transport: unix('/s'), serverName: 'localhost' }],
    ['nbds+unix:///d?socket=/s&tls-hostname=h', { tls: true, serverName: 'h' }],
  ] as const)('%s', ([text, expected]) => {
    const address = parseNbdUri(text);
    expect(address).toMatchObject(expected);
    expect(parseNbdUri(describeNbdAddress(address))).toMatchObject({
      transport: address.transport,
      exportName: address.exportName,
      tls: address.tls,
    });
  });

  it.for([
    ['', /not an NBD URI: write nbd:/],
    ['/dev/nbd0', /not an NBD URI/],
    ['http://host/', /not an NBD URI/],
    ['nbd+vsock://2/', /not an NBD URI/],
    ['nbd:host:10809', /the host is missing/],
    ['nbd:///x', /the host is missing/],
    ['nbd://host:0/x', /port 0/],
    ['nbd://host:99999/x', /not an NBD URI/],
    ['nbd://host/%ff', /not UTF-8/],
    ['nbd://host/a%00b', /NUL/],
    ['nbd://host/a#b', /%23/],
    [`nbd://host/${'x'.repeat(4097)}`, /longer than 4096 bytes/],
    ['nbds://me@host/', /pre-shared keys/],
    ['nbd://host/x?socket=/s', /socket means nothing here; known: none/],
    ['nbds://host/x?tls-certificates=/etc', /tls-certificates means nothing here; known: tls-hostname/],
    ['nbd+unix:///x', /the socket is missing/],
    ['nbd+unix:///x?socket=', /the socket is missing/],
    ['nbd+unix:///x?socket=/a&socket=/b', /socket is given twice/],
    ['nbd+unix://host/x?socket=/s', /has no host/],
    [`nbd+unix:///x?socket=/${'s'.repeat(107)}`, /longer than 107 bytes/],
  ] as const)('%s is refused', ([text, says]) => {
    expect(() => parseNbdUri(text)).toThrow(NbdUriInvalid);
    expect(() => parseNbdUri(text)).toThrow(says);
  });

  it('a password never comes back in a message', () => {
    expect(() => parseNbdUri('nbds://me:hush@host/')).not.toThrow(/hush/);
  });
});
