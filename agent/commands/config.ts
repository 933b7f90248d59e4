import type { Command } from 'commander';

import { publishedSchema, publishedSchemaText } from '../config/published-schema.ts';
import { keyPlaceOf } from '../key-place.ts';
import { placeOf } from '../repository-place.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit config check` and `failkit config schema`. */
export function register(program: Command, run: RunCommand): void {
  const config = program.command('config').description('check the configuration, or print its schema');
  config
    .command('check')
    .description('read the configuration, resolve its references and say what is wrong with it')
    .action((_options: unknown, command: Command) => run(command, checkConfig));
  config
    .command('schema')
    .description('print the JSON schema of the configuration, for editors and other tools')
    .action((_options: unknown, command: Command) => run(command, printSchema));
}

function checkConfig(context: CommandContext): CommandAnswer {
  const config = context.config();
  const file = context.configFile();
  const { green } = context.output.colours;
  return {
    document: {
      file,
      repository: placeOf(config.repository),
      machines: config.machines.map((machine) => machine.name),
    },
    lines: [
      `${green('ok')} ${file}`,
      `repository  ${placeOf(config.repository)}`,
      `keys        ${keyPlaceOf(config.keys)}`,
      `machines    ${config.machines.length}`,
    ],
  };
}

function printSchema(): CommandAnswer {
  return { document: publishedSchema(), lines: [publishedSchemaText().trimEnd()] };
}
