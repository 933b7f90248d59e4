import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A server certificate for 127.0.0.1 from a private authority of its own, as files. */
export interface LoopbackCertificate extends AsyncDisposable {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** Made by the openssl command, for Node reads certificates but cannot make them. */
export async function makeCertificate(): Promise<LoopbackCertificate> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-tls-'));
  const openssl = (...args: string[]) => promisify(execFile)('openssl', args, { cwd: folder });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test CA');
  await openssl('req', ...newKey, '-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=127.0.0.1');
  await writeFile(join(folder, 'extensions'), 'subjectAltName=IP:127.0.0.1\n');
  await openssl(
    ...['x509', '-req', '-in', 'request.pem', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
    ...['-out', 'cert.pem', '-days', '2', '-extfile', 'extensions'],
  );
  return {
    caFile: join(folder, 'ca.pem'),
    certFile: join(folder, 'cert.pem'),
    keyFile: join(folder, 'key.pem'),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
