import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { tapQmp } from './qmp-tap.js';

test('a client that dies before it has read what was said ends its own connection, and nothing else', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-tap-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const monitor = createServer((client) => client.write('{"QMP": {}}\n')).listen(join(folder, 'monitor'));
  await once(monitor, 'listening');
  await using tap = await tapQmp(join(folder, 'tap'), join(folder, 'monitor'));

  for (let round = 0; round < 20; round++) {
    const client = connect(tap.socket).pause();
    await once(client, 'connect');
    client.write('{"execute": "query-status"}\n');
    await sleep(5); // the greeting lies in the client's buffer, unread
    client.destroy();
    await once(client, 'close');
  }
  const next = connect(tap.socket);
  expect(String((await once(next, 'data'))[0])).toContain('QMP');
  next.destroy();
  monitor.close();
});
