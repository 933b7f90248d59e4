import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { changedAreas } from '../../../hypervisors/vsphere/changed-areas.ts';
import { listInventory } from '../../../hypervisors/vsphere/inventory.ts';
import { missingPrivileges, onDatastores } from '../../../hypervisors/vsphere/privileges.ts';
import { narrowDatastores } from '../../../hypervisors/vsphere/require-room.ts';
import { readObject } from '../../../hypervisors/vsphere/vim25/properties.ts';
import { waitForTask } from '../../../hypervisors/vsphere/vim25/tasks.ts';
import type { ServerTrust } from '../../../hypervisors/vsphere/vim25/trusted-agent.ts';
import { VimSession } from '../../../hypervisors/vsphere/vim25/vim-session.ts';
import {
  VsphereAnswerInvalid,
  VsphereDenied,
  VsphereLoginRefused,
  VsphereRefused,
  VsphereRequestInvalid,
  VsphereTimedOut,
  VsphereUnreachable,
  VsphereUntrusted,
} from '../../../hypervisors/vsphere/vsphere-errors.ts';
import { canaries } from '../../canary.ts';
import { makeCertificate } from '../../peers/tls-certificate.ts';
import {
  type Answer,
  type Asked,
  fixture,
  letInAs,
  pinOf,
  responseOf,
  type ScriptedVim,
  startScriptedVim,
} from './scripted-vim.ts';

const never = new AbortController().signal;
const { password } = canaries();
const machine = { type: 'VirtualMachine', id: 'vm-57' };
const instance = { type: 'ServiceInstance', id: 'ServiceInstance' };
const cookie = 'vmware_soap_session="0badc0de"';
const time = responseOf('CurrentTime', '<returnval>2026-05-05T03:02:01.5Z</returnval>');

let vim: ScriptedVim;
beforeAll(async () => {
  vim = await startScriptedVim();
});
beforeEach(() => {
  vim.reset();
  vim.answer('CurrentTime', time);
});
afterAll(() => vim?.[Symbol.asyncDispose]());

interface Changed {
  readonly vim?: ScriptedVim;
  readonly trust?: Partial<ServerTrust>;
  readonly answerBytesMax?: number;
  readonly password?: string;
  readonly keepAliveMs?: number;
}

function open(changed: Changed = {}): VimSession {
  const { port, certificate } = changed.vim ?? vim;
  const trust = { thumbprint: changed.trust ? null : pinOf(certificate), caFile: null, ...changed.trust };
  return new VimSession({
    ...{ address: { host: '127.0.0.1', port }, trust, proxy: null, user: 'VSPHERE.LOCAL\\agent' },
    password: { reveal: () => changed.password ?? password },
    ...(changed.keepAliveMs !== undefined && { keepAliveMs: changed.keepAliveMs }),
    ...(changed.answerBytesMax !== undefined && { answerBytesMax: changed.answerBytesMax }),
  });
}

const ask = (session: VimSession, options = {}) => session.call('CurrentTime', instance, [], never, options);
const methods = () => vim.asked.map(({ method }) => method);

describe('a session', () => {
  it('logs in once, shows its cookie as it was written, and logs out', async () => {
    const session = open();
    await Promise.all([ask(session), ask(session), ask(session)]);
    await session[Symbol.asyncDispose]();
    expect(methods().filter((method) => ['Login', 'Logout'].includes(method))).toEqual(['Login', 'Logout']);
    const calls = vim.asked.filter(({ method }) => ['CurrentTime', 'Logout'].includes(method));
    expect(calls.map((call) => call.cookie)).toEqual([cookie, cookie, cookie, cookie]);
    expect(calls[0]?.action).toBe('"urn:vim25/8.0.3.0"');
  });

  it('is kept alive between two calls, and no longer than it is open', async () => {
    const session = open({ keepAliveMs: 10 });
    await session.cookie(never);
    await expect.poll(() => methods().filter((method) => method === 'CurrentTime').length).toBeGreaterThan(2);
    expect(vim.asked.at(-1)?.cookie).toBe(cookie);
    await session[Symbol.asyncDispose]();
    vim.reset();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(methods()).toEqual([]);
  });

  it('logs in once more when the server forgot it, however many calls hear of that', async () => {
    vim.answer('Login', letInAs('first'), letInAs('second'));
    await using session = open();
    await ask(session);
    const known = (response: Parameters<Exclude<Answer, string>>[0], { cookie: shown = '' }: Asked): void => {
      const forgotten = shown.includes('first');
      response.writeHead(forgotten ? 500 : 200, xml).end(forgotten ? fixture('not-authenticated.xml') : time);
    };
    vim.answer('CurrentTime', known);
    await Promise.all([ask(session), ask(session), ask(session)]);
    expect(methods().filter((method) => method === 'Login')).toHaveLength(2);
  });

  it('goes on with a login that others wait for, too, when whoever began it gives up', async () => {
    vim.answer('Login', (response) => void setTimeout(() => letInAs('late')(response), 150));
    await using session = open();
    await session.content(never);
    const stop = new AbortController();
    const reason = new Error('enough');
    const first = session.call('CurrentTime', instance, [], stop.signal);
    const second = ask(session);
    setTimeout(() => stop.abort(reason), 50);
    await expect(first).rejects.toBe(reason);
    await second;
    expect(methods().filter((method) => method === 'Login')).toHaveLength(1);
  });

  it('asks anew what the server is, where nobody was told', async () => {
    vim.answer('RetrieveServiceContent', (response) => void response.destroy());
    await using session = open();
    await expect(session.content(never)).rejects.toThrow(VsphereUnreachable);
    vim.answer('RetrieveServiceContent', fixture('service-content.xml'));
    expect((await session.content(never)).about.apiVersion).toBe('8.0.2.0');
  });

  it('logs out of a login that was still under way when it was closed', async () => {
    vim.answer('Login', (response) => void setTimeout(() => letInAs('late')(response), 100));
    const session = open();
    await session.content(never);
    const stop = new AbortController();
    const asked = session.call('CurrentTime', instance, [], stop.signal).catch(() => undefined);
    await expect.poll(() => methods().includes('Login')).toBe(true);
    stop.abort();
    await asked;
    await session[Symbol.asyncDispose]();
    expect(vim.asked.at(-1)).toMatchObject({ method: 'Logout', cookie: 'vmware_soap_session="late"' });
  });

  it('does not go on logging in where that does not help', async () => {
    await using session = open();
    vim.answer('CurrentTime', fixture('not-authenticated.xml'));
    await expect(ask(session)).rejects.toThrow(VsphereRefused);
    expect(methods().filter((method) => method === 'Login')).toHaveLength(2);
  });

  it('says what a refused login means, and nothing of the password', async () => {
    const refused = fixture('no-permission.xml').replaceAll('NoPermission', 'InvalidLogin');
    vim.answer('Login', refused);
    await using session = open();
    const error = await ask(session).catch((each: unknown) => each);
    expect(error).toBeInstanceOf(VsphereLoginRefused);
    expect(inspect(error, { depth: 9 })).not.toContain(password);
    expect(String(error)).toContain('VSPHERE.LOCAL\\agent');
  });

  it('sends no password that XML can not write', async () => {
    await using session = open({ password: 'a\u0007b' });
    const error = await ask(session).catch((each: unknown) => each);
    expect(error).toBeInstanceOf(VsphereRequestInvalid);
    expect(inspect(error)).not.toContain('a\u0007b');
  });

  it('tells a missing privilege from other refusals', async () => {
    vim.answer('CurrentTime', fixture('no-permission.xml'), fixture('file-fault.xml'));
    await using session = open();
    await expect(ask(session)).rejects.toThrow(VsphereDenied);
    await expect(ask(session)).rejects.toMatchObject({ detail: { fault: 'CannotAccessFile' } });
  });

  it('ends with what a task ended with, and knows a task that is forgotten', async () => {
    await using session = open();
    const task = { type: 'Task', id: 'task-700' };
    vim.answer('RetrievePropertiesEx', fixture('task-error.xml'), goneObject);
    await expect(waitForTask(session, task, 'CreateSnapshot_Task', 1_000, never)).rejects.toMatchObject({
      detail: { fault: 'ApplicationQuiesceFault', words: /guest OS has reported an error/ },
    });
    expect(await waitForTask(session, task, 'CreateSnapshot_Task', 1_000, never)).toEqual({
      result: null,
      forgotten: true,
    });
  });
});

const goneObject = fixture('not-authenticated.xml').replaceAll('NotAuthenticated', 'ManagedObjectNotFound');

describe('the server is the one that is meant', () => {
  it('or nothing is sent: another certificate than the pinned one', async () => {
    await using other = await makeCertificate();
    await using session = open({ trust: { thumbprint: pinOf(other) } });
    await expect(ask(session)).rejects.toThrow(VsphereUntrusted);
    await expect(ask(session)).rejects.toThrow(
      /another certificate than the one that is pinned: SHA-256 ([0-9A-F]{2}:){31}/,
    );
    expect(vim.asked).toEqual([]);
  });

  it('on every new connection, not only on the first', async () => {
    await using own = await startScriptedVim();
    own.reset();
    own.answer('CurrentTime', time);
    await using session = open({ vim: own });
    await ask(session);
    const before = own.asked.length;
    await own.exchangeCertificate();
    for (let i = 0; i < 3; i++) await expect(ask(session, { repeatable: true })).rejects.toThrow(VsphereUntrusted);
    expect(own.asked).toHaveLength(before);
  });

  it('by its certificate, which a resumed connection would not show: none is resumed', async () => {
    await using own = await startScriptedVim();
    own.reset();
    own.answer('CurrentTime', time);
    const resumed: boolean[] = [];
    own.server.on('secureConnection', (socket) => resumed.push(socket.isSessionReused()));
    for (const trust of [undefined, { caFile: own.certificate.caFile }]) {
      await using session = open({ vim: own, ...(trust && { trust }) });
      for (let i = 0; i < 3; i++) {
        await ask(session, { repeatable: true });
        own.server.closeAllConnections();
      }
    }
    expect(resumed.length).toBeGreaterThanOrEqual(6);
    expect(resumed).not.toContain(true);
  });

  it('by the authority that is given, else by those of the system', async () => {
    await using known = open({ trust: { caFile: vim.certificate.caFile } });
    await ask(known);
    expect(known.certificate?.fingerprint256).toBe(
      new X509Certificate(readFileSync(vim.certificate.certFile)).fingerprint256,
    );
    const before = vim.asked.length;
    await using unknown = open({ trust: {} });
    await expect(ask(unknown)).rejects.toThrow(VsphereUntrusted);
    expect(() => open({ trust: { caFile: '/nowhere/ca.pem' } })).toThrow(VsphereUntrusted);
    expect(vim.asked).toHaveLength(before);
  });
});

describe('an answer that no vCenter gives', () => {
  const plain =
    (status: number, type: string, body: string): Answer =>
    (response) =>
      void response.writeHead(status, { 'content-type': type }).end(body);
  const cases: readonly (readonly [string, Answer, new (message: string) => Error])[] = [
    [
      'a page that says 503',
      plain(503, 'text/html', '<html><body>no healthy upstream</body></html>'),
      VsphereUnreachable,
    ],
    ['XML with a status of its own', plain(302, 'text/xml', time), VsphereUnreachable],
    ['another type of content', plain(200, 'application/json', '{}'), VsphereUnreachable],
    ['more than any answer has', plain(200, 'text/xml', 'x'.repeat(70_000)), VsphereAnswerInvalid],
    ['no end of it', endless, VsphereAnswerInvalid],
    ['half of it', (response) => truncated(response), VsphereUnreachable],
    ['silence', () => undefined, VsphereTimedOut],
    ['a beginning, and then silence', (response) => void response.writeHead(200, xml).write('<'), VsphereTimedOut],
    ['entities of its own', plain(200, 'text/xml', bomb), VsphereAnswerInvalid],
  ];
  it.each(cases)('is refused: %s', async (_, answer, kind) => {
    vim.answer('CurrentTime', answer);
    await using session = open({ answerBytesMax: 65_536 });
    await expect(ask(session, { timeoutMs: 400 })).rejects.toThrow(kind);
  });

  it('is refused: more than there is memory for, also where nobody said how much that is', async () => {
    vim.answer('CurrentTime', plain(200, 'text/xml', `<a>${'<b/>'.repeat(3 * 2 ** 20)}</a>`));
    await using session = open();
    await expect(ask(session)).rejects.toThrow(/answers with more than 8388608 bytes/);
  });

  it('passes the reason of an abort through', async () => {
    vim.answer('CurrentTime', () => undefined);
    await using session = open();
    await session.content(never);
    const stop = new AbortController();
    const asked = session.call('CurrentTime', instance, [], stop.signal);
    const reason = new Error('enough');
    setImmediate(() => stop.abort(reason));
    await expect(asked).rejects.toBe(reason);
  });

  it('is asked for once more where a connection broke, but only what may be asked twice', async () => {
    const broken: Answer = (response) => void response.destroy();
    vim.answer('CurrentTime', broken, time);
    await using session = open();
    await ask(session, { repeatable: true });
    vim.answer('CurrentTime', broken, time);
    await expect(ask(session)).rejects.toThrow(VsphereUnreachable);
  });
});

const xml = { 'content-type': 'text/xml' };
const bomb = `<!DOCTYPE a [<!ENTITY a "${'a'.repeat(1000)}">${[...'bcdefghij'].map((b, i) => `<!ENTITY ${b} "&${'abcdefghi'[i]};&${'abcdefghi'[i]};">`).join('')}]><a>&j;</a>`;

function truncated(response: Parameters<Exclude<Answer, string>>[0]): void {
  response.writeHead(200, { ...xml, 'content-length': '5000' });
  response.write('<soapenv:Envelope>');
  setImmediate(() => response.destroy());
}

function endless(response: Parameters<Exclude<Answer, string>>[0]): void {
  response.writeHead(200, xml);
  const more = (): void => {
    if (!response.destroyed) response.write('<a/>'.repeat(2_000), () => setImmediate(more));
  };
  more();
}

describe('the inventory', () => {
  it('is read to its last page, with names as they are and reasons for what can not be protected', async () => {
    const made = responseOf('CreateContainerView', '<returnval type="ContainerView">session[52]view-1</returnval>');
    vim.answer('CreateContainerView', made);
    vim.answer('DestroyView', responseOf('DestroyView', ''));
    vim.answer('RetrievePropertiesEx', fixture('machines-page-1.xml'));
    vim.answer('ContinueRetrievePropertiesEx', fixture('machines-page-2.xml'));
    await using session = open();
    const entries = await listInventory(session, never);
    expect(entries.map(({ path, machine: { name } }) => [path, name])).toEqual([
      ['007', '007'],
      ['café <52e10> & %2fetc%5c%25', 'café <52e10> & /etc\\%'],
    ]);
    expect(methods().at(-1)).toBe('DestroyView');
    const [first] = entries;
    expect(first?.machine).toMatchObject({
      ...{ instanceUuid: '502e1052-e10a-0070-52e1-000000000007', tracking: 'on', hasTpm: true, firmware: 'bios' },
      currentSnapshot: { id: 'snapshot-62' },
      snapshots: [
        { name: 'before update', depth: 1, quiesced: false },
        { name: 'failkit-0badc0de-1', depth: 2, quiesced: true },
      ],
    });
    expect(first?.machine.disks.map(({ label, refusal }) => [label, refusal?.split(':')[0] ?? null])).toEqual([
      ['scsi0:0', null],
      ['scsi0:1', 'it is a raw device in physical mode, of which vSphere takes no snapshots'],
      ['sata0:2', 'its mode is independent_nonpersistent'],
      ['nvme0:0', 'it is shared by several machines (multi-writer)'],
      ['scsi1:0', 'its controller shares its bus (physicalSharing)'],
      ['scsi0:2', null],
    ]);
    expect(first?.machine.disks[0]).toMatchObject({
      ...{ key: 2000, capacityBytes: 4_503_599_627_370_496, file: '[52e10] 007/007_1-000002.vmdk' },
      ...{ identity: '3fa85f64-5717-4562-b3fc-2c963f66afa6', encrypted: false },
      changeId: '52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81',
    });
    expect(first?.machine.disks[5]).toMatchObject({ encrypted: true });
  });

  it('knows a property that may not be read from one that is not there', async () => {
    vim.answer('RetrievePropertiesEx', fixture('machines-page-1.xml'));
    await using session = open();
    const object = await readObject(session, machine, ['name', 'config.keyId'], never);
    expect([object.missing, object.properties.has('config.keyId')]).toEqual([['config.keyId'], false]);
  });
});

it('an account lacks every privilege on what it may not even see', async () => {
  const key = '<val><key>52c0</key></val>';
  const session52 = `<returnval><objects><obj type="SessionManager">SessionManager</obj><propSet><name>currentSession</name>${key}</propSet></objects></returnval>`;
  vim.answer('RetrievePropertiesEx', responseOf('RetrievePropertiesEx', session52));
  vim.answer('HasPrivilegeOnEntities', fixture('no-permission.xml'));
  await using session = open();
  const ref = { type: 'Datastore', id: 'datastore-1' };
  expect(await missingPrivileges({ session, ref }, onDatastores, never)).toEqual(onDatastores);
});

describe('the room on datastores', () => {
  const datastores = [{ type: 'Datastore', id: 'datastore-1' }];
  const narrow = async () => {
    await using session = open();
    return await narrowDatastores(session, { datastores }, 1000, never);
  };
  const summary = (freeSpace: number | bigint): string =>
    responseOf(
      'RetrievePropertiesEx',
      `<returnval><objects><obj type="Datastore">datastore-1</obj><propSet><name>summary</name><val xsi:type="DatastoreSummary"><name>vmfs-1</name><freeSpace>${freeSpace}</freeSpace></val></propSet></objects></returnval>`,
    );

  it('is looked at where the account may see it', async () => {
    vim.answer('RetrievePropertiesEx', summary(999), summary(1000));
    expect(await narrow()).toEqual([{ name: 'vmfs-1', freeBytes: 999 }]);
    expect(await narrow()).toEqual([]);
  });

  it('may be more than a number can hold, as file systems on the network say', async () => {
    vim.answer('RetrievePropertiesEx', summary(9_223_372_036_853_727_232n));
    expect(await narrow()).toEqual([]);
  });

  it('is not known to an account that may not, and keeps it from nothing', async () => {
    vim.answer('RetrievePropertiesEx', fixture('no-permission.xml'));
    expect(await narrow()).toEqual([]);
  });
});

describe('changed areas', () => {
  const capacityBytes = 1024 * 1024;
  const window = (start: number, length: number, ...areas: readonly (readonly [number, number])[]): string => {
    const changed = areas.map(
      ([at, bytes]) => `<changedArea><start>${at}</start><length>${bytes}</length></changedArea>`,
    );
    const inside = `<startOffset>${start}</startOffset><length>${length}</length>${changed.join('')}`;
    return responseOf('QueryChangedDiskAreas', `<returnval>${inside}</returnval>`);
  };
  const areasOf = async (...answers: readonly Answer[]) => {
    vim.answer('QueryChangedDiskAreas', ...answers);
    await using session = open();
    const snapshot = { type: 'VirtualMachineSnapshot', id: 'snapshot-61' };
    const question = { machine, snapshot, deviceKey: 2000, capacityBytes, changeId: '52/1' };
    const found: (readonly [number, number])[] = [];
    for await (const { offset, length } of changedAreas(session, question, never)) found.push([offset, length]);
    return found;
  };

  it('are asked for until the whole disk is covered: a window without any is no end', async () => {
    const found = await areasOf(
      window(0, 262_144),
      window(262_144, 262_144, [262_144, 65_536], [458_752, 65_536]),
      window(524_288, 131_072),
      window(655_360, 393_216, [983_040, 65_536]),
    );
    expect(found).toEqual([
      [262_144, 65_536],
      [458_752, 65_536],
      [983_040, 65_536],
    ]);
    expect(vim.asked.flatMap(({ body }) => /<startOffset>(\d+)/.exec(body)?.[1] ?? [])).toEqual([
      '0',
      '262144',
      '524288',
      '655360',
    ]);
  });

  it.each([
    ['begins elsewhere', window(65_536, capacityBytes - 65_536)],
    ['does not advance', window(0, 0)],
    ['runs backwards', window(0, -65_536)],
    ['goes beyond the disk', window(0, capacityBytes + 512)],
    ['has an area before it', window(0, capacityBytes, [-512, 1024])],
    ['has an area that ends after it', window(0, 65_536, [0, 131_072])],
    ['has areas that overlap', window(0, capacityBytes, [0, 65_536], [32_768, 65_536])],
    ['has areas in no order', window(0, capacityBytes, [131_072, 65_536], [0, 65_536])],
    ['has an empty area', window(0, capacityBytes, [0, 0])],
    ['says no length', responseOf('QueryChangedDiskAreas', '<returnval><startOffset>0</startOffset></returnval>')],
    ['is nothing', responseOf('QueryChangedDiskAreas', '')],
  ])('are refused where a window %s', async (_, answer) => {
    await expect(areasOf(answer)).rejects.toThrow(VsphereAnswerInvalid);
  });
});
