import type { Manipulation } from './manipulations.ts';
import { isNamed, type Level } from './read-everything.ts';
import type { Attempt } from './run-sweep.ts';

/** What each manipulation must come to. A rule is as narrow as it can be, so that a check that is gone shows as another code. */

interface Rule {
  readonly kind: Manipulation['kind'];
  readonly name?: string | RegExp;
  readonly where?: string | RegExp;
  /** Codes that may be given; none: nothing is noticed, and everything that is read is right. */
  readonly codes: readonly string[];
  readonly levels?: readonly Level[];
}

const restore: readonly Level[] = ['restore'];
const ciphertext: readonly Level[] = ['ciphertext verify'];
const verify: readonly Level[] = ['full verify', 'ciphertext verify'];

/** The first that fits. */
const rules: readonly Rule[] = [
  { kind: 'repository', name: 'remove', codes: ['REPOSITORY_NOT_FOUND'], levels: restore },
  {
    kind: 'repository',
    name: 'flip',
    where: /^(created|repository id)$/,
    codes: ['SIGNATURE_INVALID', 'FORMAT_INVALID'],
    levels: restore,
  },
  { kind: 'repository', name: /by the same/, codes: ['FORMAT_INVALID'], levels: restore },
  { kind: 'repository', codes: ['FORMAT_INVALID', 'SIGNATURE_INVALID'], levels: restore },

  { kind: 'trust', name: /remove|gone/, codes: ['TRUST_BROKEN', 'REPLICA_ROLLED_BACK'], levels: restore },
  { kind: 'trust', codes: ['FORMAT_INVALID', 'SIGNATURE_INVALID'], levels: restore },

  { kind: 'key record', name: 'add', codes: ['CHAIN_BROKEN', 'FORMAT_INVALID'], levels: verify },
  { kind: 'key record', name: 'remove', where: /^a later revision/, codes: [] },
  {
    kind: 'key record',
    where: /^a later revision/,
    codes: ['FORMAT_INVALID', 'SIGNATURE_INVALID', 'AGENT_NOT_TRUSTED'],
    levels: verify,
  },
  { kind: 'key record', codes: ['CHAIN_BROKEN', 'FORMAT_INVALID'] },

  { kind: 'chain entry', name: 'add', codes: ['FORMAT_INVALID'], levels: restore },
  { kind: 'chain entry', name: 'remove', codes: ['CHAIN_BROKEN', 'REPLICA_ROLLED_BACK'] },
  { kind: 'chain entry', name: /gone/, codes: ['CHAIN_BROKEN', 'FORMAT_INVALID'] },
  { kind: 'chain entry', name: 'flip', where: 'signer', codes: ['AGENT_NOT_TRUSTED'] },
  { kind: 'chain entry', name: 'flip', where: 'nonce', codes: ['SIGNATURE_INVALID'] },
  { kind: 'chain entry', where: 'of a fork', codes: ['CHAIN_BROKEN'], levels: restore },
  { kind: 'chain entry', codes: ['FORMAT_INVALID', 'SIGNATURE_INVALID'] },

  { kind: 'control object', name: 'remove', codes: ['OBJECT_NOT_FOUND'] },
  { kind: 'control object', codes: ['CONTROL_TAMPERED'] },

  { kind: 'segment', name: 'add', codes: [] },
  {
    kind: 'segment',
    name: 'flip',
    where: /^(magic|version|suite|flags|zero)$/,
    codes: ['FORMAT_INVALID'],
    levels: restore,
  },
  {
    kind: 'segment',
    name: 'flip',
    where: /^(repository id|machine id|number)$/,
    codes: ['SEGMENT_MISPLACED'],
    levels: restore,
  },
  { kind: 'segment', name: 'flip', where: 'tenure', codes: ['SEGMENT_MISPLACED', 'FORMAT_INVALID'], levels: restore },
  {
    kind: 'segment',
    name: 'flip',
    where: 'epoch',
    codes: ['SEGMENT_MISPLACED', 'COMMITMENT_MISMATCH'],
    levels: restore,
  },
  { kind: 'segment', name: 'flip', where: /^(salt|commitment)$/, codes: ['COMMITMENT_MISMATCH'], levels: restore },
  { kind: 'segment', name: 'flip', where: /^(data|attachment)/, codes: ['RECORD_TAMPERED'], levels: restore },
  { kind: 'segment', name: 'flip', where: /^page/, codes: ['PAGE_REPLACED'], levels: restore },
  {
    kind: 'segment',
    name: 'flip',
    where: /^(footer|record count|end magic)/,
    codes: ['OBJECT_ALTERED'],
    levels: ciphertext,
  },
  { kind: 'segment', name: /^(truncate by 1|extend by 1|double)$/, codes: ['OBJECT_ALTERED'], levels: verify },
  { kind: 'segment', name: /^(truncate to half|empty)$/, codes: ['RANGE_INVALID'], levels: restore },
  { kind: 'segment', name: 'zero', codes: ['FORMAT_INVALID', 'PAGE_REPLACED'], levels: restore },
  { kind: 'segment', name: 'remove', codes: ['OBJECT_NOT_FOUND'], levels: restore },
  { kind: 'segment', name: 'swap records', codes: ['RECORD_TAMPERED', 'PAGE_REPLACED'], levels: restore },
  { kind: 'segment', where: 'of a fork', codes: ['CONTENT_MISMATCH', 'PAGE_REPLACED'], levels: restore },
  {
    kind: 'segment',
    codes: ['SEGMENT_MISPLACED', 'PAGE_REPLACED', 'RANGE_INVALID', 'OBJECT_NOT_FOUND'],
    levels: restore,
  },

  { kind: 'bucket', name: 'roll back', codes: ['REPLICA_ROLLED_BACK'], levels: ['mark'] },
  { kind: 'bucket', where: /newest/, codes: ['REPLICA_ROLLED_BACK'], levels: ['mark'] },
  { kind: 'bucket', where: 'by its fork', codes: ['REPLICA_FORKED'], levels: ['mark'] },
  { kind: 'bucket', name: /fork/, codes: ['PAGE_REPLACED', 'CONTENT_MISMATCH'], levels: restore },
  { kind: 'bucket', where: /key record/, codes: ['CHAIN_BROKEN'], levels: restore },
  { kind: 'bucket', where: /segment/, codes: ['OBJECT_NOT_FOUND'], levels: restore },
  { kind: 'bucket', where: /trust|repository$/, codes: ['REPOSITORY_NOT_FOUND', 'REPLICA_NOT_FOUND'], levels: restore },
  { kind: 'bucket', codes: ['REPLICA_NOT_FOUND'], levels: restore },
];

/** What is wrong with the outcome, in words; null when it is what it must be. */
export function complaint({ manipulation, outcome, remains }: Attempt): string | null {
  const { kind, name, where, changes } = manipulation;
  const what = `${kind}, ${name}, ${where} (${[...changes.keys()].slice(0, 2).join(', ')})`;
  const rule = rules.find((candidate) => fits(candidate, manipulation));
  if (rule === undefined) return `${what}: no rule says what must happen`;
  const { noticed, error } = outcome;
  if (remains?.error !== null && remains !== null && !isNamed(remains.error))
    return `${what}: reading around it ends with ${remains.error}`;
  if (noticed === null) return rule.codes.length === 0 ? null : `${what}: nobody noticed`;
  if (!isNamed(error)) return `${what}: ${error}`;
  if (!rule.codes.includes(error.code)) return `${what}: ${error.code} (${error.message})`;
  if (rule.levels !== undefined && !rule.levels.includes(noticed)) return `${what}: noticed only by ${noticed}`;
  return namesObject(error.message, manipulation) ? null : `${what}: does not say which object: ${error.message}`;
}

function fits(rule: Rule, { kind, name, where }: Manipulation): boolean {
  return rule.kind === kind && matches(rule.name, name) && matches(rule.where, where);
}

function matches(pattern: string | RegExp | undefined, text: string): boolean {
  if (pattern === undefined) return true;
  return typeof pattern === 'string' ? pattern === text : pattern.test(text);
}

/** The changed object; where that can't be told apart, its neighbour; where a whole part is gone, whose it was. */
function namesObject(message: string, { kind, name, changes }: Manipulation): boolean {
  const names = [...changes.keys()];
  if (names.some((changed) => message.includes(changed))) return true;
  if (kind === 'trust' || name === 'remove' || name === 'roll back' || kind === 'bucket')
    return names.some(
      (changed) =>
        message.includes(changed.split('/')[1] ?? changed) ||
        message.includes('trust statement') ||
        message.includes('repository'),
    );
  if (kind === 'repository') return message.includes('trust/');
  return names.some((changed) => message.includes(changed.slice(0, changed.lastIndexOf('/') + 1)));
}
