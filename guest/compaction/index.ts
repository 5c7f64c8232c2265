export { Compaction } from './compaction.ts';
export { Kcompactd } from './kcompactd.ts';
export { CompactPriority } from './result.ts';
