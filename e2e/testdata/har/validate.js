// Holds the HAR files that it is given to the schema of HAR 1.2.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Ajv from "ajv";
import addFormats from "ajv-formats";
import schemas from "har-schema";

// Keywords such as "optional" are the schemas' own.
const ajv = addFormats(new Ajv({ allErrors: true, verbose: true, strict: false }));
ajv.addMetaSchema(createRequire(import.meta.url)("ajv/dist/refs/json-schema-draft-06.json"));
for (const [name, schema] of Object.entries(schemas)) if (name !== "har") ajv.addSchema(schema);
const validate = ajv.compile(schemas.har);

for (const file of process.argv.slice(2)) {
  const har = JSON.parse(readFileSync(file, "utf8"));
  if (validate(har)) console.log(`${har.log.entries.length} entries are valid`);
  else for (const e of validate.errors) console.log(`${e.instancePath} ${e.message}: ${JSON.stringify(e.data)}`);
  if (validate.errors) process.exitCode = 1;
}
