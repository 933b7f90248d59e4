/** A monitor behind which the real one is: it counts what a client asks, and can call back at any of it. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export interface QmpTap extends AsyncDisposable {
  readonly socket: string;
  /** Commands of the client since the tap was armed; questions that change nothing are left out. */
  readonly commands: readonly string[];
  /** Calls back when QEMU was given the nth command from now on, or the next of that name. */
  arm(which: number | string, then: () => void): void;
}

export async function tapQmp(socket: string, monitor: string): Promise<QmpTap> {
  let commands: string[] = [];
  let armed: { readonly which: number | string; readonly then: () => void } | null = null;
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const qemu = connect(monitor);
    for (const side of [client, qemu]) {
      open.add(side);
      side.on('error', () => undefined);
      side.on('close', () => {
        open.delete(side);
        client.destroy();
        qemu.destroy();
      });
    }
    qemu.pipe(client, { end: false });
    const lines = createInterface({ input: client });
    lines.on('error', () => undefined); // it passes on those of its input, such as that of a client that was killed
    lines.on('line', (line) => {
      const command = String(JSON.parse(line).execute);
      if (!command.startsWith('query-')) commands.push(command);
      const isNth = armed?.which === commands.length && commands.at(-1) === command;
      const fires = isNth || armed?.which === command ? armed : null;
      if (fires !== null) armed = null;
      qemu.write(`${line}\n`, () => fires?.then());
    });
  }).listen(socket);
  await once(server, 'listening');
  return {
    socket,
    get commands() {
      return commands;
    },
    arm(which, then) {
      commands = [];
      armed = { which, then };
    },
    async [Symbol.asyncDispose]() {
      for (const side of open) side.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
