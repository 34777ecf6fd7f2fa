// Parses AsyncAPI documents: node asyncapi.mjs FILE…; prints {file: [diagnostics]} as JSON.
// Run it where @asyncapi/parser is installed.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.cwd()}/`);
const { Parser } = require("@asyncapi/parser");

const found = {};
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
  found[file] = diagnostics.map((d) => `${d.code} at ${d.path.join("/")}: ${d.message}`);
  if (document === undefined && found[file].length === 0) found[file].push("not a document");
}
process.stdout.write(JSON.stringify(found));
