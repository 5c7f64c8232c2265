/**
 * Tags: a comment `spec:` with clause ids. In a test file it counts for the next `it` or `test`
 * call; in other code it only says where a clause is kept.
 */

export interface Tag {
  readonly file: string;
  readonly line: number;
  readonly ids: readonly string[];
  /** The title of the test below; null in code, and where no test that runs follows. */
  readonly title: string | null;
}

const TAG = /^[ \t]*\/\/ spec: *(.*)$/gm;
const CALL = /^(?:it|test)(?=[.(])/;
const MODIFIER = /^\.(\w+)/;
/** Of these no test is sure to run. */
const NOT_RUN = ['skip', 'todo'];
/** Calls of their own, before the one with the title. */
const WITH_ARGUMENTS = ['each', 'for', 'runIf', 'skipIf'];
const BETWEEN = /^(?:\s+|\/\/[^\n]*\n|\/\*[\s\S]*?\*\/)+/;

export function findTags(file: string, text: string): Tag[] {
  const found: Tag[] = [];
  for (const match of text.matchAll(TAG)) {
    const ids = match[1]!
      .split(',')
      .map((id) => id.trim())
      .filter((id) => id !== '');
    const line = text.slice(0, match.index).split('\n').length;
    found.push({ file, line, ids, title: titleOf(text.slice(match.index + match[0].length)) });
  }
  return found;
}

/** The title of the test call that `text` begins with, or null if it begins with none. */
function titleOf(text: string): string | null {
  const code = text.replace(BETWEEN, '');
  const call = CALL.exec(code);
  if (!call) return null;
  let at = call[0].length;
  for (let next = MODIFIER.exec(code.slice(at)); next; next = MODIFIER.exec(code.slice(at))) {
    if (NOT_RUN.includes(next[1]!)) return null;
    at += next[0].length;
    if (WITH_ARGUMENTS.includes(next[1]!)) at = afterGroup(code, at);
  }
  const title = /^\(\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|`((?:[^`\\]|\\.)*)`)/.exec(
    code.slice(at),
  );
  if (!title) return null;
  return (title[1] ?? title[2] ?? title[3])!.replaceAll(/\\(.)/g, '$1');
}

const STRING_OR_COMMENT =
  /^(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\/)/;

/** The index after the bracket that closes the one at `start`; a template literal is a group, too. */
function afterGroup(code: string, start: number): number {
  let depth = 0;
  let at = start;
  while (at < code.length) {
    const skipped = STRING_OR_COMMENT.exec(code.slice(at, at + 4096));
    if (skipped) at += skipped[0].length;
    else {
      if ('([{'.includes(code[at]!)) depth++;
      if (')]}'.includes(code[at]!)) depth--;
      at++;
    }
    if (depth === 0) break;
  }
  return at;
}
