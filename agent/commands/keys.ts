import type { Command } from 'commander';
import { readKeyFile } from '../../crypto/key-file.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { recoveryKeyFromPem, recoveryWrapper } from '../../crypto/recovery-key.ts';
import { toHex } from '../../replica/encoding.ts';
import type { KeyRecord } from '../../replica/key-record.ts';
import { ConfigInvalid } from '../config/config-invalid.ts';
import { type KeyedMachine, keyedMachines, openEpochs } from '../keys/keyed-machines.ts';
import { type RewrapPlan, type RewrappedEpoch, rewrapMachine } from '../keys/rewrap-machine.ts';
import { type TestedMachine, testRecovery } from '../keys/test-recovery.ts';
import { openKeyProvider } from '../open-keys.ts';
import { plural, secondText } from '../quantities.ts';
import { exitCodes } from '../remedy.ts';
import { checkStore, openSession, type Session } from '../session.ts';
import { MachineState } from '../state/machine-state.ts';
import { formatTable } from '../table.ts';
import { openAgentKey } from '../wire.ts';
import { chooseMachines } from './choose-machines.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit keys`: who can open the data keys, and moving them to other keys. No block is read or written for it. */

interface RewrapFlags {
  readonly from?: string;
  readonly recoveryKey?: string;
  readonly again?: boolean;
}

const machinesHelp = 'names or ids (default: all of the repository)';

export function register(program: Command, run: RunCommand): void {
  const keys = program.command('keys').description('show who can open the data keys, and move them to other keys');
  keys
    .command('list')
    .description('show each key epoch and by whom its data key is wrapped')
    .argument('[machines...]', machinesHelp)
    .action((names: string[], _options: unknown, command: Command) =>
      run(command, (context) => listKeys(names, context)),
    );
  keys
    .command('rotate')
    .description("end the key epoch in force: the machine's next run begins another one")
    .argument('[machines...]', 'names from the configuration (default: all)')
    .action((names: string[], _options: unknown, command: Command) =>
      run(command, (context) => rotate(names, context)),
    );
  keys
    .command('rewrap')
    .description('wrap all data keys with the key of this configuration and the recovery key in force, and no other')
    .argument('[machines...]', machinesHelp)
    .option('--from <file>', 'a configuration that names the former key, to unwrap with (default: this one)')
    .option('--recovery-key <file>', 'unwrap with the recovery key of the kit instead')
    .option('--again', 'also what the same key has wrapped already')
    .action((names: string[], flags: RewrapFlags, command: Command) =>
      run(command, (context) => rewrap(names, flags, context)),
    );
  keys
    .command('add-wrap')
    .description('let a further key open the data keys that there are, besides those that do now')
    .argument('[machines...]', machinesHelp)
    .requiredOption('--key-of <file>', 'a configuration that names the further key')
    .action((names: string[], flags: { keyOf: string }, command: Command) =>
      run(command, (context) => addWrap(names, flags.keyOf, context)),
    );
  keys
    .command('test-recovery')
    .description('prove that the recovery key of the kit opens every data key; changes nothing')
    .argument('[machines...]', machinesHelp)
    .requiredOption('--recovery-key <file>', 'recovery.key of the recovery kit')
    .action((names: string[], flags: { recoveryKey: string }, command: Command) =>
      run(command, (context) => proveRecovery(names, flags.recoveryKey, context)),
    );
}

async function listKeys(names: readonly string[], context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  await using session = await openSession(context);
  const recovery = recoveryWrapper(session.repo.trust.recoveryPublicKey);
  const rows: (readonly string[])[] = [];
  const machines: object[] = [];
  for await (const machine of keyedMachines(session, names, signal)) {
    const { replica, epochs } = await openEpochs(session, machine, [], signal);
    using _ = replica;
    const records: KeyRecord[] = [];
    for (const epoch of epochs) records.push(await replica.keys.record(epoch, signal));
    machines.push({ machine: machine.name, machineId: toHex(machine.machineId), epochs: records.map(documentOf) });
    rows.push(...records.flatMap((record) => rowsOf(machine, record, recovery)));
  }
  const columns = [
    { title: 'machine' },
    { title: 'epoch', align: 'right' as const },
    { title: 'begun (UTC)' },
    { title: 'revision', align: 'right' as const },
    { title: 'opens with' },
  ];
  return {
    document: { recoveryKey: recovery.keyId, machines },
    lines: rows.length === 0 ? ['no machine has a key epoch yet'] : formatTable(columns, rows, context.output.columns),
  };
}

function documentOf({ context, revision, createdMs, wraps }: KeyRecord): object {
  return {
    epoch: context.epoch,
    revision,
    begunTime: new Date(createdMs).toISOString(),
    wraps: wraps.map(({ provider, keyId }) => ({ provider, keyId })),
  };
}

function rowsOf({ name }: KeyedMachine, record: KeyRecord, recovery: KeyProvider): readonly (readonly string[])[] {
  const first = [name, String(record.context.epoch), secondText(record.createdMs), String(record.revision)];
  return record.wraps.map(({ provider, keyId }, index) => {
    const former = provider === recovery.provider && keyId !== recovery.keyId ? ' (of a former kit)' : '';
    return [...(index === 0 ? first : ['', '', '', '']), `${provider} ${keyId}${former}`];
  });
}

async function rotate(names: readonly string[], context: CommandContext): Promise<CommandAnswer> {
  const { signal } = context;
  const chosen = chooseMachines(context.config(), names);
  await using session = await openSession(context);
  const rotated: { readonly machine: string; readonly endedEpoch: number }[] = [];
  for await (const machine of keyedMachines(
    session,
    chosen.map(({ name }) => name),
    signal,
  )) {
    const { replica } = await openEpochs(session, machine, [], signal);
    using _ = replica;
    using state = new MachineState(session.config.state, machine.name);
    state.askForRotation(replica.chain.state.epoch);
    rotated.push({ machine: machine.name, endedEpoch: replica.chain.state.epoch });
  }
  return {
    document: { machines: rotated },
    lines: rotated.map(({ machine, endedEpoch }) => `${machine}: its next run ends key epoch ${endedEpoch}`),
  };
}

async function rewrap(names: readonly string[], flags: RewrapFlags, context: CommandContext): Promise<CommandAnswer> {
  await using opened = new AsyncDisposableStack();
  const session = opened.use(await openSession(context));
  requireWrapper(session.provider, context.configFile());
  const openers: KeyProvider[] = [session.provider];
  if (flags.from !== undefined)
    openers.unshift(opened.use(await openKeyProvider(context.otherConfig(flags.from).keys)).provider);
  if (flags.recoveryKey !== undefined) openers.unshift(recoveryKeyFromPem(await readKeyFile(flags.recoveryKey)));
  const wrappers = [session.provider, recoveryWrapper(session.repo.trust.recoveryPublicKey)];
  return await rewrapAll(session, names, { openers, wrappers, add: false, again: flags.again === true }, context);
}

async function addWrap(names: readonly string[], file: string, context: CommandContext): Promise<CommandAnswer> {
  await using opened = new AsyncDisposableStack();
  const session = opened.use(await openSession(context));
  const { provider } = opened.use(await openKeyProvider(context.otherConfig(file).keys));
  requireWrapper(provider, file);
  const plan = { openers: [session.provider], wrappers: [provider], add: true, again: false };
  return await rewrapAll(session, names, plan, context);
}

/** A recovery key wraps for its own kit, which every record is wrapped for anyway. */
function requireWrapper({ provider }: KeyProvider, file: string): void {
  if (provider !== 'recovery-key') return;
  const what = 'is recovery-key: name the key that the data keys are to be wrapped with';
  throw new ConfigInvalid(file, [{ line: null, key: 'keys.provider', what }]);
}

async function rewrapAll(
  session: Session,
  names: readonly string[],
  plan: RewrapPlan,
  context: CommandContext,
): Promise<CommandAnswer> {
  const { signal, output } = context;
  await checkStore(session, signal);
  const agent = await openAgentKey(session.config);
  const epochs: RewrappedEpoch[] = [];
  for await (const machine of keyedMachines(session, names, signal))
    for await (const epoch of rewrapMachine(session, machine, plan, agent, signal)) epochs.push(epoch);
  const written = epochs.filter(({ revision }) => revision !== null);
  const untried = written.filter(({ tried }) => !tried).length;
  const rows = written.map(({ machine, epoch, revision, wraps }) => [
    machine,
    String(epoch),
    String(revision),
    wraps.map(({ provider, keyId }) => `${provider} ${keyId}`).join(', '),
  ]);
  const columns = [{ title: 'machine' }, { title: 'epoch' }, { title: 'revision' }, { title: 'opens with' }];
  return {
    document: {
      epochs: epochs.map(({ wraps, ...epoch }) => ({ ...epoch, wraps: wraps.map(({ blob, ...wrap }) => wrap) })),
    },
    lines: [
      `${plural(written.length, 'data key')} wrapped, ${epochs.length - written.length} left as they were`,
      ...(written.length === 0 ? [] : formatTable(columns, rows, output.columns)),
      ...(untried === 0
        ? []
        : [
            `${plural(untried, 'wrap')} not tried: this host may not unwrap. Try a restore before you give up the former key`,
          ]),
    ],
  };
}

async function proveRecovery(names: readonly string[], file: string, context: CommandContext): Promise<CommandAnswer> {
  const { signal, output } = context;
  await using session = await openSession(context);
  const recovery = recoveryKeyFromPem(await readKeyFile(file));
  const tested: TestedMachine[] = [];
  for await (const machine of keyedMachines(session, names, signal))
    tested.push(await testRecovery(session, machine, recovery, signal));
  const epochs = tested.flatMap(({ machine, epochs: each }) => each.map((epoch) => ({ machine, ...epoch })));
  const failed = epochs.filter(({ refusal }) => refusal !== null);
  return {
    document: { recoveryKey: recovery.keyId, machines: tested },
    lines: [
      `${recovery.keyId} opens ${epochs.length - failed.length} of ${plural(epochs.length, 'data key')}`,
      ...failed.map(({ machine, epoch, refusal }) => output.colours.red(`${machine}, epoch ${epoch}: ${refusal}`)),
    ],
    exitCode: failed.length === 0 ? exitCodes.ok : exitCodes.keys,
  };
}
