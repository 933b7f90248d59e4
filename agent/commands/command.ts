import type { Command } from 'commander';
import type { Config } from '../config/config-schema.ts';
import type { OnHangUp } from '../interrupt.ts';
import type { Logger } from '../log.ts';
import type { Output } from '../output.ts';
import type { ExitCode } from '../remedy.ts';

/** What a command works with. */
export interface CommandContext {
  /** Aborted by Ctrl-C; hand it to everything that waits. */
  readonly signal: AbortSignal;
  readonly output: Output;
  /** The file that `--config` names, or the one that was found. Throws ConfigNotFound when there is none. */
  configFile(): string;
  /** Read and checked once. Throws ConfigInvalid, or ConfigNotFound. */
  config(): Config;
  /** Another file, which a command names. Throws as `config` does. */
  otherConfig(file: string): Config;
  /** The state of the file right before it was read. */
  configLoadedAs(): string;
  /** As the file is now. Throws ConfigInvalid. */
  reloadConfig(): Config;
  readonly onHangUp: OnHangUp;
  /** Written to as the configuration says; `--log-level` overrides its level. */
  logger(): Logger;
}

/** What a command found or did. */
export interface CommandAnswer {
  /** For `--json`. Sizes in bytes, durations in milliseconds, times as ISO texts. */
  readonly document: object;
  /** The same for a person. */
  readonly lines: readonly string[];
  /** 0 unless given; `verify` that found damage has an answer and still exits with 7. */
  readonly exitCode?: ExitCode;
}

/**
 * Runs the work of one command, prints its answer and turns what it throws into an exit code. To be called from a
 * commander action with the action's own Command, which knows the options.
 */
export type RunCommand = (
  command: Command,
  work: (context: CommandContext) => CommandAnswer | Promise<CommandAnswer>,
) => Promise<void>;

/** Each file in this folder exports one as `register`, and agent/cli.ts lists it. */
export type RegisterCommand = (program: Command, run: RunCommand) => void;
