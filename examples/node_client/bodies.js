// What the workers execute, by executor: (task, signal) => result, or throw.
//
// task: {name, attempt, arguments, inputs, lastDetails}; signal: aborted when the kernel asks to stop.
// An executor's name of one's own has a dot. A body may run more than once: what it does to the
// outside world is to be keyed by the task.

export default {
  "node.greet": async ({ inputs }) => `hello, ${inputs.who}`,
  "node.sum": async ({ inputs }) => Object.values(inputs).reduce((sum, value) => sum + value, 0),
};
