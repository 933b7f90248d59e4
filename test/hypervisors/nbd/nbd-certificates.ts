import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A certificate authority, and what it signed, in the folders that qemu-nbd and nbdkit expect. */
export interface NbdCertificates extends AsyncDisposable {
  readonly ca: string;
  /** Of somebody else, who signed nothing here. */
  readonly otherCa: string;
  readonly client: { readonly certificate: string; readonly key: string };
  /** Signed by the other authority. */
  readonly otherClient: { readonly certificate: string; readonly key: string };
  /** ca-cert.pem, server-cert.pem, server-key.pem; for 127.0.0.1 and localhost. */
  readonly serverFolder: string;
  /** Likewise, though for another name. */
  readonly otherNameFolder: string;
  /** Likewise, though it ended yesterday. */
  readonly expiredFolder: string;
}

type Run = (...args: string[]) => Promise<unknown>;

export async function makeNbdCertificates(): Promise<NbdCertificates> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-tls-'));
  const run: Run = (...args) => promisify(execFile)('openssl', args, { cwd: folder });
  for (const name of ['ca', 'other-ca']) await makeAuthority(run, name);
  const local = 'subjectAltName=IP:127.0.0.1,DNS:localhost\n';
  const text = (name: string) => readFile(join(folder, name), 'utf8');
  const serverFolder = await makeServerFolder(run, folder, 'server', local, '2');
  const otherNameFolder = await makeServerFolder(run, folder, 'other-name', 'subjectAltName=DNS:other.example\n', '2');
  const expiredFolder = await makeServerFolder(run, folder, 'expired', local, '-1');
  await sign(run, folder, 'client', 'ca', 'extendedKeyUsage=clientAuth\n', '2');
  await sign(run, folder, 'other-client', 'other-ca', 'extendedKeyUsage=clientAuth\n', '2');
  return {
    ca: await text('ca.pem'),
    otherCa: await text('other-ca.pem'),
    client: { certificate: await text('client.pem'), key: await text('client.key') },
    otherClient: { certificate: await text('other-client.pem'), key: await text('other-client.key') },
    serverFolder,
    otherNameFolder,
    expiredFolder,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

function makeAuthority(run: Run, name: string): Promise<unknown> {
  const extensions = ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'];
  const files = ['-keyout', `${name}.key`, '-out', `${name}.pem`];
  return run('req', '-x509', ...newKey, ...files, '-days', '2', '-subj', `/CN=${name}`, ...extensions);
}

async function sign(run: Run, folder: string, name: string, ca: string, extensions: string, days: string) {
  await run('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
  await writeFile(join(folder, `${name}.ext`), `${extensions}keyUsage=critical,digitalSignature\n`);
  await run(
    ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial'],
    ...['-out', `${name}.pem`, '-days', days, '-extfile', `${name}.ext`],
  );
}

async function makeServerFolder(run: Run, folder: string, name: string, extensions: string, days: string) {
  await sign(run, folder, name, 'ca', `${extensions}extendedKeyUsage=serverAuth\n`, days);
  const into = join(folder, `${name}-files`);
  await mkdir(into);
  await copyFile(join(folder, 'ca.pem'), join(into, 'ca-cert.pem'));
  await copyFile(join(folder, `${name}.pem`), join(into, 'server-cert.pem'));
  await copyFile(join(folder, `${name}.key`), join(into, 'server-key.pem'));
  return into;
}
