import { Command, CommanderError, Option } from 'commander';
import { register as registerAcknowledge } from './commands/acknowledge.ts';
import { register as registerCache } from './commands/cache.ts';
import type { CommandContext, RegisterCommand, RunCommand } from './commands/command.ts';
import { register as registerCompletion } from './commands/completion.ts';
import { register as registerConfig } from './commands/config.ts';
import { register as registerCopy } from './commands/copy.ts';
import { register as registerDoctor } from './commands/doctor.ts';
import { register as registerDrill } from './commands/drill.ts';
import { register as registerDu } from './commands/du.ts';
import { register as registerInit } from './commands/init.ts';
import { register as registerKeys } from './commands/keys.ts';
import { register as registerMachines } from './commands/machines.ts';
import { register as registerPin } from './commands/pin.ts';
import { register as registerPoints } from './commands/points.ts';
import { register as registerProtect } from './commands/protect.ts';
import { register as registerPrune } from './commands/prune.ts';
import { register as registerRestore } from './commands/restore.ts';
import { register as registerRoot } from './commands/root.ts';
import { register as registerServe } from './commands/serve.ts';
import { register as registerStatus } from './commands/status.ts';
import { register as registerSweep } from './commands/sweep.ts';
import { register as registerVerify } from './commands/verify.ts';
import { ConfigNotFound } from './config/config-invalid.ts';
import { type Config, type LogLevel, logLevels } from './config/config-schema.ts';
import type { Environment } from './config/environment.ts';
import { configFiles, findConfigFile } from './config/find-config.ts';
import { loadConfig } from './config/load-config.ts';
import { describeFailure } from './failure.ts';
import { fileStateNow } from './file-state.ts';
import type { OnHangUp } from './interrupt.ts';
import { createLogger } from './log.ts';
import { createOutput, type Output, type TextStream } from './output.ts';
import { type ExitCode, exitCodes } from './remedy.ts';
import { agentVersion } from './version.ts';

/** A new command is one file in commands/ and one line here; the order is that of the help. */
const commands: readonly RegisterCommand[] = [
  registerInit,
  registerMachines,
  registerProtect,
  registerStatus,
  registerAcknowledge,
  registerPoints,
  registerRestore,
  registerServe,
  registerVerify,
  registerDrill,
  registerPrune,
  registerPin,
  registerSweep,
  registerCopy,
  registerDu,
  registerRoot,
  registerKeys,
  registerCache,
  registerConfig,
  registerDoctor,
  registerCompletion,
];

/** The process around the command line. */
export interface Host {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  readonly environment: Environment;
  readonly signal: AbortSignal;
  readonly onHangUp: OnHangUp;
}

interface GlobalOptions {
  readonly config?: string;
  readonly json?: boolean;
  readonly logLevel?: LogLevel;
}

/** Runs one command line (without `node failkit`) to its end. Never throws: what went wrong is printed, and is the exit code. */
export async function runCli(args: readonly string[], host: Host): Promise<ExitCode> {
  // Known before commander has parsed anything, because a usage error has to be answered in JSON too.
  const output = createOutput({ ...host, json: args.includes('--json') });
  host.signal.addEventListener('abort', () => output.note('stopping… (once more to stop at once)'), { once: true });
  let exitCode: ExitCode = exitCodes.ok;
  const run: RunCommand = async (command, work) => {
    const answer = await work(contextFor(command.optsWithGlobals<GlobalOptions>(), host, output));
    output.answer(answer.document, answer.lines);
    exitCode = answer.exitCode ?? exitCodes.ok;
  };
  const program = createProgram(host, run);
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return exitCodes.ok;
    return report(error, host, output, program.opts<GlobalOptions>().logLevel);
  }
}

function createProgram(host: Host, run: RunCommand): Command {
  const program = new Command('failkit')
    .description('Replicates virtual machines, encrypted, into your own cloud bucket.')
    .version(agentVersion())
    .option('--config <file>', `configuration file (default: ${configFiles.join(', else ./')})`)
    .option('--json', 'print one JSON document instead of text')
    .addOption(new Option('--log-level <level>', 'what is logged').choices(logLevels))
    .configureOutput({
      writeOut: (text) => host.stdout.write(text),
      writeErr: (text) => host.stderr.write(text),
      // Usage errors are printed with all the others, by report().
      outputError: () => undefined,
    })
    .exitOverride();
  for (const register of commands) register(program, run);
  return program;
}

function contextFor(options: GlobalOptions, host: Host, output: Output): CommandContext {
  const file = once(() => options.config ?? configFile());
  const load = (): Config => loadConfig(file(), host.environment);
  const loadedAs = once(() => fileStateNow(file()));
  const config = once(() => {
    loadedAs();
    return load();
  });
  return {
    signal: host.signal,
    output,
    configFile: file,
    config,
    otherConfig: (other) => loadConfig(other, host.environment),
    configLoadedAs: loadedAs,
    reloadConfig: load,
    onHangUp: host.onHangUp,
    logger: once(() => createLogger({ ...config().logging, ...levelFrom(options) })),
  };
}

function levelFrom({ logLevel }: GlobalOptions): { readonly level?: LogLevel } {
  return logLevel === undefined ? {} : { level: logLevel };
}

function configFile(): string {
  const found = findConfigFile();
  if (found !== null) return found;
  throw new ConfigNotFound(`there is no configuration: neither ${configFiles[0]} nor a failkit.yaml here`);
}

function report(error: unknown, host: Host, output: Output, logLevel: LogLevel | undefined): ExitCode {
  const failure = describeFailure(error, host.signal, { stack: logLevel === 'debug' || logLevel === 'trace' });
  output.failure(failure.document, failure.lines);
  return failure.exitCode;
}

function once<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | null = null;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
