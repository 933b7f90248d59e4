/** Runs before the tests of each file: the directories that they ask for are gone after the last of them. */
import { afterAll } from 'vitest';
import { removeNewDirectories } from './storage-targets/new-directory.ts';

afterAll(removeNewDirectories);
