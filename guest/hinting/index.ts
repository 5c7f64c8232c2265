export * from './alloc.ts';
export * from './create.ts';
export * from './iterate.ts';
export * from './oracle.ts';
