export * from './event-columns.ts';
export * from './format.ts';
export * from './gfp.ts';
export { decodeRecording, readRecording } from './reader.ts';
export { encodeRecording } from './writer.ts';
