import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clone } from '../real-files.ts';
import { darkTheme, drawSvg, lightTheme } from './draw-svg.ts';
import { atTerminal, change, configure, type Lab, makeLab } from './lab.ts';
import type { Recording } from './pseudo-terminal.ts';
import { Terminal } from './terminal.ts';

/**
 * `npm run screenshots`: what the command line shows on a real terminal, drawn into docs/images. `-- --look FOLDER` draws
 * more of the same for whoever checks it: narrow, and on a light background.
 */

const images = join(clone, 'docs/images');
const wideColumns = 100;
const narrowColumns = 60;
const readRate = 'limits: { readMiBPerSecond: 60 }\n';

const accounting = { name: 'accounting-db', disks: ['accounting-system', 'accounting-data'] };
const web = { name: 'web-1', disks: ['web'] };
const build = { name: 'build-runner', disks: ['build'] };
const unreadable = { name: 'intranet-with-a-long-name.example', disks: ['intranet'] };

type Moment = (terminal: Terminal) => boolean;

interface Scene {
  readonly name: string;
  readonly title: string;
  readonly args: readonly string[];
  readonly recording: Recording;
  readonly columns: number;
  /** Null: the end. */
  readonly moment: Moment | null;
}

const lookAt = process.argv.indexOf('--look');
const lookFolder = lookAt === -1 ? null : (process.argv[lookAt + 1] ?? null);
const controller = new AbortController();
process.once('SIGINT', () => controller.abort());
const root = mkdtempSync(join(tmpdir(), 'failkit-screens-'));
try {
  await tell(makeLab(root, controller.signal));
} finally {
  rmSync(root, { recursive: true });
}

async function tell(lab: Lab): Promise<void> {
  configure(lab, [accounting, web, build]);
  await shown(lab, ['init', '--kit', '../kit'], null, 'init', 'failkit init makes the repository and the recovery kit');
  configure(lab, [accounting], readRate);
  const half: Moment = ({ text }) => / (5[5-9]|6\d) %/.test(text);
  await shown(lab, ['seed'], half, 'seed', 'failkit seed shows bytes, rate, time left, and what it skipped');
  configure(lab, [accounting, web, build, unreadable]);
  await atTerminal(lab, ['seed', 'web-1', 'build-runner'], wideColumns);
  change(lab, 'accounting-system', 40);
  change(lab, 'web', 9);
  await shown(lab, ['sync', 'accounting-db', 'web-1'], null, 'sync', 'failkit sync sends what changed');
  renameSync(join(lab.folder, 'build.img'), join(lab.folder, 'gone.img'));
  await atTerminal(lab, ['sync', 'build-runner'], wideColumns);
  await shown(lab, ['status'], null, 'status', 'failkit status: what could be restored, and what needs a person');
  await shown(lab, ['doctor'], null, 'doctor', 'failkit doctor: each finding with what to do');
  await shown(lab, ['sync', 'web-l'], null, 'error', 'an error says what to do about it');
  const restoring: Moment = ({ text }) => / [4-6]\d %/.test(text);
  const restore = ['restore', 'accounting-db', '--to', '../restored'];
  await shown(lab, restore, null, 'restore', 'failkit restore: every block is checked', restoring);
  await shown(lab, ['verify', 'accounting-db'], null, 'verify', 'failkit verify: is it all still whole?');
}

/** `alsoAt`: another moment, for looking only. */
async function shown(
  lab: Lab,
  args: readonly string[],
  moment: Moment | null,
  name: string,
  title: string,
  alsoAt: Moment | null = null,
): Promise<void> {
  const recording = await atTerminal(lab, args, wideColumns);
  const scene = { name, title, args, recording, columns: wideColumns, moment };
  write(images, scene, darkTheme);
  if (lookFolder === null) return;
  write(lookFolder, { ...scene, name: `${name}-light` }, lightTheme);
  if (alsoAt !== null) write(lookFolder, { ...scene, name: `${name}-midway`, moment: alsoAt }, darkTheme);
  const again = ['status', 'doctor', 'error'].includes(name);
  if (!again) return;
  const narrow = await atTerminal(lab, args, narrowColumns);
  write(lookFolder, { ...scene, name: `${name}-narrow`, recording: narrow, columns: narrowColumns }, darkTheme);
}

function write(folder: string, scene: Scene, theme: typeof darkTheme): void {
  mkdirSync(folder, { recursive: true });
  const terminal = new Terminal(scene.columns);
  terminal.write(`\x1b[2m$\x1b[22m \x1b[1mfailkit ${scene.args.join(' ')}\x1b[22m\r\n`);
  let reached = scene.moment === null;
  for (const { text } of scene.recording.pieces) {
    terminal.write(text);
    if (scene.moment?.(terminal) !== true) continue;
    reached = true;
    break;
  }
  if (!reached) throw new Error(`the moment of ${scene.name} never came:\n${terminal.text}`);
  const picture = drawSvg(terminal.rows, { columns: scene.columns, title: scene.title, theme });
  writeFileSync(join(folder, `terminal-${scene.name}.svg`), picture);
  process.stdout.write(`terminal-${scene.name}.svg\n${terminal.text}\n\n`);
}
