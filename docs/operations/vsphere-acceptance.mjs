#!/usr/bin/env node
// Tries the agent on a real vCenter or ESXi host with a test machine, and writes a report: docs/operations/vsphere-acceptance.md.
// It changes nothing but that machine's tracking and snapshots; with --datastore it also creates a machine beside it.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const text = { type: 'string' };
const { values: options } = parseArgs({
  options: {
    ...{ server: text, user: text, 'password-file': text, thumbprint: text, 'ca-file': text, machine: text },
    ...{ libdir: text, nbdkit: text, datastore: text, pool: text, work: text, report: text, failkit: text },
    ...{ syncs: { ...text, default: '3' }, yes: { type: 'boolean', default: false } },
  },
});
const usage = `Usage: node vsphere-acceptance.mjs --server HOST --user USER --password-file FILE --machine DATACENTER/vm/NAME
         (--thumbprint SHA256 | --ca-file FILE) [--libdir DIR] [--nbdkit FILE] [--datastore NAME [--pool PATH]]
         [--work DIR] [--report FILE] [--failkit FILE] [--syncs 3] [--yes]
--yes: the machine is off, or nothing writes to it, so that nobody needs to be asked to shut it down`;

const snapshotPattern = /^failkit-[0-9a-f]{8}-/;
const steps = [];
const facts = [];
const work = resolve(options.work ?? 'failkit-acceptance');
const failkitPath = options.failkit ?? join(import.meta.dirname, '../../bin/failkit');

/** Runs one step; what it returns stands in the report. A step that throws failed, and the next one is tried. */
async function step(name, run) {
  process.stdout.write(`${name} ... `);
  try {
    const detail = (await run()) ?? '';
    record(name, detail.startsWith('skipped:') ? 'skipped' : 'ok', detail.replace(/^skipped: /, ''));
  } catch (error) {
    record(name, 'FAILED', error instanceof Error ? error.message : String(error));
  }
}

function record(name, outcome, detail) {
  steps.push({ name, outcome, detail });
  process.stdout.write(`${outcome}${detail === '' ? '' : `: ${detail}`}\n`);
}

function require(holds, message) {
  if (!holds) throw new Error(message);
}

/** YAML is a superset of JSON. */
async function configure(changed = {}, machines = [machineOf('web', options.machine)]) {
  const lab = {
    ...{ name: 'lab', type: 'vsphere', server: options.server, user: options.user },
    password: `\${file:${resolve(options['password-file'])}}`,
    ...(options.thumbprint && { thumbprint: options.thumbprint }),
    ...(options['ca-file'] && { caFile: resolve(options['ca-file']) }),
    vddk: { ...(options.libdir && { libdir: options.libdir }), ...(options.nbdkit && { nbdkit: options.nbdkit }) },
  };
  const config = {
    repository: { target: 'filesystem', directory: join(work, 'bucket') },
    keys: { provider: 'local-key', file: join(work, 'local.key') },
    state: join(work, 'state'),
    sources: [{ ...lab, ...changed }],
    machines,
  };
  await writeFile(join(work, 'failkit.yaml'), JSON.stringify(config, null, 2), { mode: 0o600 });
}

function machineOf(name, path, more = {}) {
  return { name, source: { type: 'vsphere', from: 'lab', path, ...more } };
}

function start(...args) {
  const child = spawn(failkitPath, ['--config', join(work, 'failkit.yaml'), ...args], { cwd: work });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (piece) => {
    stdout += piece;
  });
  child.stderr.on('data', (piece) => {
    stderr += piece;
  });
  const ended = new Promise((done) => {
    child.once('error', (error) => done({ code: -1, stdout, stderr: error.message }));
    child.once('close', (code) => done({ code: code ?? -1, stdout, stderr }));
  });
  return { child, ended };
}

async function failkit(...args) {
  const { code, stdout, stderr } = await start(...args).ended;
  require(code === 0, `failkit ${args.join(' ')} ended with ${code}: ${stderr.trim().slice(0, 600)}`);
  return stdout;
}

async function replicate(verb, name = 'web') {
  const [published] = JSON.parse(await failkit(verb, name, '--json')).machines;
  await requireNoSnapshots();
  return published;
}

async function listed(path = options.machine) {
  const { machines } = JSON.parse(await failkit('machines', '--json'));
  return machines.find((each) => each.path === path) ?? null;
}

async function ownSnapshots() {
  return ((await listed())?.snapshots ?? []).filter((name) => snapshotPattern.test(name));
}

async function requireNoSnapshots() {
  const left = await ownSnapshots();
  require(left.length === 0, `snapshots were left: ${left.join(', ')}`);
}

function speedOf({ readBytes, durationMs, consistency }) {
  const mebibytes = readBytes / 2 ** 20;
  return `${mebibytes.toFixed(1)} MiB read in ${(durationMs / 1000).toFixed(1)} s (${(mebibytes / (durationMs / 1000)).toFixed(1)} MiB/s), ${consistency}`;
}

async function doctor() {
  const { stdout } = await start('doctor', '--json').ended;
  return JSON.parse(stdout).findings;
}

async function checkDoctor() {
  const findings = await doctor();
  for (const { check, outcome, what } of findings) facts.push(`doctor, ${check}: ${outcome}: ${what}`);
  // Before the first copy there is nothing to compare the account and the bucket with: what vSphere says counts.
  const own = findings.filter(({ check }) => /^(source|vddk|machine)/.test(check));
  const failed = own.filter(({ outcome }) => outcome === 'failed');
  require(failed.length === 0, failed.map(({ what }) => what).join('; '));
  return `${own.filter(({ outcome }) => outcome === 'warning').length} warnings, see below`;
}

async function checkPin() {
  if (!options.thumbprint) return 'skipped: no thumbprint is pinned';
  const last = options.thumbprint.at(-1) === '0' ? '1' : '0';
  await configure({ thumbprint: options.thumbprint.slice(0, -1) + last });
  const found = (await doctor()).find(({ code }) => code === 'VSPHERE_UNTRUSTED');
  await configure();
  require(found !== undefined, 'a server with another certificate than the pinned one was not refused');
  return 'another thumbprint is refused';
}

async function checkSyncs() {
  const told = [];
  for (let i = 0; i < Number(options.syncs); i++) {
    const published = await replicate('sync');
    const full = published.disks.filter(({ fullReadReason }) => fullReadReason !== '');
    require(full.length === 0, full.map(({ label, fullReadReason }) => `${label}: ${fullReadReason}`).join('; '));
    told.push(`${(published.readBytes / 2 ** 20).toFixed(1)} MiB`);
  }
  return `read ${told.join(', ')}: what changed, by tracking`;
}

async function checkKill() {
  const { child, ended } = start('resync', 'web');
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over && (await ownSnapshots()).length === 0) await sleep(100);
  const late = 'skipped: the run was over before it could be killed: take a larger machine';
  if (over) return late;
  child.kill('SIGKILL');
  await ended;
  const left = (await ownSnapshots()).length;
  await replicate('sync');
  // It had removed its snapshot between the look and the kill.
  return left === 0 ? late : `${left} snapshot was there after the kill, and none after the next run`;
}

async function checkSecrets() {
  const password = (await readFile(options['password-file'], 'utf8')).trim();
  const { ended } = start('resync', 'web');
  let [over, looks] = [false, 0];
  const seen = new Set();
  void ended.then(() => {
    over = true;
  });
  while (!over) {
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)))
      for (const file of ['cmdline', 'environ'])
        if (toldBy(pid, file).includes(password)) seen.add(`/proc/${pid}/${file}`);
    looks++;
    await sleep(20);
  }
  require((await ended).code === 0, 'the run failed');
  require(seen.size === 0, `the password stood in ${[...seen].join(', ')}`);
  return `looked ${looks} times at the command lines and environments of this host`;
}

function toldBy(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // It ended, or is another user's.
  }
}

async function checkTracking() {
  await replicate('sync');
  const { changedBytes, readBytes } = await replicate('resync');
  require(changedBytes === 0, `a full read found ${changedBytes} bytes that changed and that tracking did not report`);
  return `a full read of ${(readBytes / 2 ** 20).toFixed(1)} MiB found nothing that tracking had not reported`;
}

async function hashes(folder) {
  const found = {};
  for (const name of (await readdir(folder)).filter((each) => each.endsWith('.raw')).sort()) {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(join(folder, name))) hash.update(piece);
    found[name] = hash.digest('hex');
  }
  return found;
}

async function restored(name, ...more) {
  const folder = join(work, `restored-${name}`);
  await rm(folder, { recursive: true, force: true });
  await failkit('restore', name, '--to', folder, ...more);
  const found = await hashes(folder);
  await rm(folder, { recursive: true });
  require(Object.keys(found).length > 0, 'nothing was restored');
  return JSON.stringify(found);
}

async function checkPaths() {
  await configure({}, [machineOf('web', options.machine), machineOf('other', options.machine, { reads: 'datastore' })]);
  const { code, stderr } = await start('seed', 'other').ended;
  if (code !== 0) return `skipped: it can't be read from its datastore: ${stderr.trim().split('\n')[0]}`;
  const [byVddk, byDatastore] = [await restored('web'), await restored('other')];
  require(byVddk === byDatastore, `VDDK and the datastore do not agree: ${byVddk} ${byDatastore}`);
  return `what was read through VDDK and from the datastore is the same: ${byVddk}`;
}

async function checkRestore() {
  if (!options.datastore) return 'skipped: no --datastore was given';
  const name = `failkit-acceptance-${Date.now()}`;
  const place = ['--datastore', options.datastore, ...(options.pool ? ['--pool', options.pool] : [])];
  const original = await restored('web', '--vsphere', 'lab', '--name', name, ...place);
  const path = `${options.machine.split('/vm/')[0]}/vm/${name}`;
  require((await listed(path)) !== null, `${path} is not in the inventory`);
  await configure({}, [machineOf('web', options.machine), machineOf('copy', path)]);
  await failkit('seed', 'copy');
  const copy = await restored('copy');
  require(copy === original, `the new machine's disks differ: ${original} ${copy}`);
  return `${path} has the same disks: start it, look at it, then delete it`;
}

/** What only a person can see. */
const byHand = [
  'The machine that was created starts, and its services work (no network is connected unless you do it).',
  'During a run of a busy machine: how long does its guest stand still when the snapshot is taken, and when it is removed?',
  'A run while the machine is moved to another host, and one while its storage is moved: the next runs are good, and restore.',
  'A machine with VMware Tools is application-consistent; with a database in it, the database starts from a restored point.',
  'The datastore has its free space back after the runs.',
  'vCenter has no logins of the account left (administration, sessions), and no alarms.',
];

async function writeReport() {
  const failed = steps.filter(({ outcome }) => outcome === 'FAILED').length;
  const cell = (value) => value.replaceAll('|', '\\|').replaceAll('\n', ' ');
  const lines = [
    '# Acceptance of failkit on vSphere',
    '',
    `${new Date().toISOString()}, machine ${options.machine} of ${options.server}: ${failed === 0 ? 'passed' : `${failed} FAILED`}`,
    '',
    '| step | outcome | detail |',
    '|---|---|---|',
    ...steps.map(({ name, outcome, detail }) => `| ${cell(name)} | ${outcome} | ${cell(detail)} |`),
    ...['', '## What was found', '', ...facts.map((fact) => `- ${fact.replaceAll('\n', ' ')}`)],
    ...['', '## By hand', '', ...byHand.map((what) => `- [ ] ${what}`), ''],
  ];
  const report = resolve(options.report ?? join(work, 'report.md'));
  await writeFile(report, lines.join('\n'));
  process.stdout.write(`\nThe report is in ${report}\n`);
  return failed;
}

async function becomeStill() {
  if (options.yes) return;
  const asked = createInterface({ input: process.stdin, output: process.stdout });
  await asked.question('\nShut the guest down now, so that nothing writes to it. Then press Enter. ');
  asked.close();
}

/** Only what this script made is removed. */
async function emptied() {
  const mark = join(work, '.failkit-acceptance');
  if (existsSync(work) && !existsSync(mark) && (await readdir(work)).length > 0) return false;
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true, mode: 0o700 });
  await writeFile(mark, '');
  return true;
}

async function main() {
  const needed = ['server', 'user', 'password-file', 'machine'].filter((name) => !options[name]);
  if (needed.length > 0 || !(options.thumbprint || options['ca-file'])) {
    process.stderr.write(`${usage}\n`);
    return 2;
  }
  if (!(await emptied())) {
    process.stderr.write(`${work} is there, and this script did not make it: name another --work\n`);
    return 2;
  }
  await configure();
  facts.push((await failkit('--version')).trim());
  await step('vCenter, hosts, privileges and VDDK are as they should be (doctor)', checkDoctor);
  await step('another certificate is refused', checkPin);
  await step('a repository is made', async () => void (await failkit('init', '--kit', join(work, 'kit'))));
  await step('the machine is listed, with its disks', async () => {
    const found = await listed();
    require(found !== null, `${options.machine} is not in the inventory: the account does not see it`);
    return `${found.disks.map(({ label, capacityBytes }) => `${label} ${capacityBytes}`).join(', ')}; firmware ${found.firmware}`;
  });
  await step('first copy', async () => speedOf(await replicate('seed')));
  await step('changes only, by changed block tracking', checkSyncs);
  await step('killed in the middle, the next run cleans up', checkKill);
  await step('the password is on no command line', checkSecrets);
  await becomeStill();
  await step('tracking told the truth', checkTracking);
  await step('two ways of reading give the same', checkPaths);
  await configure();
  await step('a machine is created from a point, with the same disks', checkRestore);
  await step('nothing is left', requireNoSnapshots);
  return (await writeReport()) === 0 ? 0 : 1;
}

process.exitCode = await main();
