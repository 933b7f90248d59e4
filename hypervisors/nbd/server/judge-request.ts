import { command, commandFlag, commandName } from '../nbd-wire.ts';
import { requestBytesMax } from './describe-export.ts';
import type { Agreement } from './server-handshake.ts';
import type { ReceivedRequest } from './server-replies.ts';

/** Why a request is not served. The connection goes on. */
export interface Refusal {
  /** The protocol's name of the error. */
  readonly errno: 'EINVAL' | 'ENOSPC' | 'EPERM';
  readonly words: string;
}

const writing: readonly number[] = [command.write, command.writeZeroes, command.trim];
/** Those whose length says how many bytes travel. */
const carrying: readonly number[] = [command.read, command.write];

/** Null: it keeps to the protocol and to what was agreed on. */
export function judgeRequest(request: ReceivedRequest, agreement: Agreement): Refusal | null {
  const { writes } = agreement.handler;
  if (!isServed(request.command, agreement)) return { errno: 'EINVAL', words: 'no such command here' };
  if (writes === undefined && writing.includes(request.command))
    return { errno: 'EPERM', words: 'the export is read-only' };
  const unknown = request.flags & ~allowedFlags(request.command, agreement);
  if (unknown !== 0) return { errno: 'EINVAL', words: `flags 0x${unknown.toString(16)} mean nothing there` };
  return judgeRange(request, agreement);
}

export function describeRequest(request: ReceivedRequest): string {
  const name = commandName[request.command] ?? `command ${request.command}`;
  return `${name} of ${request.length} bytes at ${request.offset}`;
}

function isServed(number: number, { handler, allocation }: Agreement): boolean {
  if (number === command.flush) return handler.writes !== undefined;
  if (number === command.blockStatus) return allocation;
  return number === command.read || writing.includes(number);
}

function allowedFlags(number: number, { handler: { writes }, structured }: Agreement): number {
  const own: Readonly<Record<number, number>> = {
    [command.read]: structured ? commandFlag.dontFragment : 0,
    [command.writeZeroes]: commandFlag.noHole | (writes?.zeroesAreFast === true ? commandFlag.fastZero : 0),
    [command.blockStatus]: commandFlag.requestOne,
  };
  // Valid with every command, once it was offered; a read has nothing to make durable.
  return (own[number] ?? 0) | (writes === undefined ? 0 : commandFlag.fua);
}

function judgeRange({ command: number, offset, length }: ReceivedRequest, { handler }: Agreement): Refusal | null {
  if (number === command.flush)
    return offset === 0n && length === 0 ? null : { errno: 'EINVAL', words: 'a flush has no range' };
  if (carrying.includes(number) && length > requestBytesMax)
    return { errno: 'EINVAL', words: `at most ${requestBytesMax} bytes at once` };
  const { minBlockBytes = 1 } = handler;
  if (offset % BigInt(minBlockBytes) !== 0n || length % minBlockBytes !== 0)
    return { errno: 'EINVAL', words: `only whole blocks of ${minBlockBytes} bytes` };
  if (number === command.blockStatus && length === 0) return { errno: 'EINVAL', words: 'a status of nothing' };
  if (offset + BigInt(length) <= BigInt(handler.capacityBytes)) return null;
  const grows = number === command.write || number === command.writeZeroes;
  return { errno: grows ? 'ENOSPC' : 'EINVAL', words: `the export ends at ${handler.capacityBytes}` };
}
