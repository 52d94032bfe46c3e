// Starts a run and follows it to its end:  node client.js [WHO ...]
//
// Each WHO is a task of the executor "node.greet", which the workers beside this file offer; the
// run's output is what the last one says. Exit status 0 when the run succeeded.

import { call, connect, metadata, uuid7 } from "./stretto.js";

const names = process.argv.slice(2);
if (!names.length) names.push("you");
const { runs } = connect();

const tasks = names.map((who, index) => ({
  name: `greet-${index}`,
  executor: "node.greet",
  arguments_json: "{}",
  inputs: { who: { literal: { json: JSON.stringify(who) } } },
  dependencies: index ? [{ task: `greet-${index - 1}` }] : [],
}));
const output = { task_output: { task: tasks.at(-1).name } };
const started = await call(runs, "StartRun", {
  request_id: uuid7(),
  display_name: "from Node",
  task_graph: { tasks, output },
});
console.log(JSON.stringify({ started: started.run.run_id }));

let run = started.run;
let version = 0;
for (let ended = false; !ended; ) {
  const watch = runs.WatchRun({ name: run.name, tasks: true, after_version: version }, metadata());
  try {
    for await (const change of watch) {
      ({ run, version, ended } = change);
      for (const task of change.tasks) console.log(JSON.stringify({ [task.name]: task.state }));
    }
  } catch (error) {
    // The kernel restarts, or the connection broke: go on after the version seen last.
    if (error.code !== 14) throw error;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
console.log(JSON.stringify({ state: run.state, output: JSON.parse(run.output?.json || "null") }));
process.exit(run.state === "RUN_STATE_SUCCEEDED" ? 0 : 1);
