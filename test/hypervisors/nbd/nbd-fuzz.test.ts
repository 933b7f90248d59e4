import { it } from 'vitest';
import { fuzzReplies } from './fuzzed-replies.ts';

it('NBD: spoiled replies end in named errors, soon and in little memory', () => fuzzReplies(60));
