"use strict";

// Draws /openapi.json: every operation with its parameters, body and answers, a curl line, and a form to try it.

const byId = (id) => document.getElementById(id);

// An element with attributes and children; texts are texts, never markup.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

let schemas = {};

const resolve = (schema) => {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, ...schemas[name] } : schema ?? {};
};

// A schema in one word, such as `Vm`, `integer or null` or `array of Host`.
function typeOf(schema) {
  if (schema?.$ref) return schema.$ref.split("/").pop();
  if (schema?.oneOf || schema?.anyOf) return (schema.oneOf ?? schema.anyOf).map(typeOf).join(" or ");
  if (schema?.allOf) return schema.allOf.map(typeOf).join(" with ");
  const types = [].concat(schema?.type ?? "any");
  return types.map((type) => (type === "array" ? `array of ${typeOf(schema.items)}` : type)).join(" or ");
}

// All fields of an object, those of its parts included.
function fieldsOf(schema) {
  const whole = resolve(schema);
  const parts = (whole.allOf ?? []).flatMap(fieldsOf);
  const required = whole.required ?? [];
  return parts.concat(
    Object.entries(whole.properties ?? {}).map(([name, field]) => ({ name, field, required: required.includes(name) })),
  );
}

function exampleOf(schema) {
  const known = resolve(schema);
  const value = (field) => {
    const of = resolve(field);
    const type = [].concat(of.type ?? "string")[0];
    return of.examples?.[0] ?? of.enum?.[0] ?? { integer: 0, number: 0, boolean: false, array: [], object: {} }[type] ?? "";
  };
  const needed = fieldsOf(known).filter(({ required }) => required);
  return JSON.stringify(Object.fromEntries(needed.map(({ name, field }) => [name, value(field)])), null, 2);
}

function table(head, rows) {
  const line = (cell, cells) => element("tr", {}, ...cells.map((text) => element(cell, {}, text)));
  return rows.length ? element("table", {}, line("th", head), ...rows.map((row) => line("td", row))) : null;
}

function schemaTable(schema) {
  const rows = fieldsOf(schema).map(({ name, field, required }) => [
    element("code", {}, name),
    typeOf(field) + (required ? "" : " (optional)"),
    field.description ?? resolve(field).description ?? "",
  ]);
  return table(["field", "type", "meaning"], rows);
}

const jsonOf = (part) => Object.values(part?.content ?? {})[0]?.schema;

function operation(path, method, about) {
  const parameters = about.parameters ?? [];
  const inputs = parameters.map((parameter) => ({ parameter, input: element("input", { "aria-label": parameter.name }) }));
  const body = about.requestBody ? element("textarea", { "aria-label": "body" }) : null;
  if (body) body.value = exampleOf(jsonOf(about.requestBody));
  const answer = element("pre", { hidden: "" });
  const send = element("button", { type: "button" }, method === "get" ? "Try it" : "Send (this changes the mesh)");
  send.addEventListener("click", async () => {
    const given = (place) => inputs.filter(({ parameter, input }) => parameter.in === place && input.value !== "");
    let url = path;
    for (const { parameter, input } of given("path")) {
      url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    }
    const query = new URLSearchParams(given("query").map(({ parameter, input }) => [parameter.name, input.value]));
    if (query.size) url += `?${query}`;
    const headers = Object.fromEntries(given("header").map(({ parameter, input }) => [parameter.name, input.value]));
    if (byId("token").value) headers.authorization = `Bearer ${byId("token").value}`;
    if (body) headers["content-type"] = "application/json";
    answer.hidden = false;
    try {
      const response = await fetch(url, { method: method.toUpperCase(), headers, body: body?.value });
      const text = await response.text();
      const isJson = (response.headers.get("content-type") ?? "").includes("json");
      answer.textContent = `${response.status} ${url}\n\n${isJson ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
    } catch (error) {
      answer.textContent = `no answer from ${url}: ${error.message}`;
    }
  });
  const curl = ["curl", method === "get" ? "" : `-X ${method.toUpperCase()}`, body ? "-H 'content-type: application/json' -d @body.json" : "", `'${location.origin}${path}'`];
  const parameterRows = inputs.map(({ parameter, input }) => [
    element("code", {}, parameter.name), input, parameter.in + (parameter.required ? "" : ", optional"), parameter.description ?? "",
  ]);
  const answers = Object.entries(about.responses).filter(([status]) => status !== "default").flatMap(([status, response]) => [
    element("h4", {}, `${status}: ${response.description} `, element("span", { class: "soft" }, jsonOf(response) ? typeOf(jsonOf(response)) : "no body")),
    jsonOf(response) ? schemaTable(jsonOf(response)) : null,
  ]);
  return element("details", {},
    element("summary", {}, element("span", { class: `method ${method}` }, method.toUpperCase()), element("code", {}, path), element("span", { class: "soft" }, about.summary ?? "")),
    element("div", {},
      about.description ? element("p", {}, about.description) : null,
      table(["parameter", "value", "where", "meaning"], parameterRows),
      body ? element("h4", {}, "Body: ", typeOf(jsonOf(about.requestBody))) : null,
      body ? schemaTable(jsonOf(about.requestBody)) : null, body,
      element("pre", {}, curl.filter(Boolean).join(" ")), send, answer, ...answers));
}

async function draw() {
  const document_ = await (await fetch("/openapi.json")).json();
  schemas = document_.components?.schemas ?? {};
  byId("version").textContent = document_.info.version;
  byId("about").textContent = document_.info.description;
  const all = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => ({ path, method, about })));
  byId("operations").replaceChildren(...document_.tags.map((tag) => element("section", {},
    element("h2", {}, tag.name), element("p", { class: "soft" }, tag.description ?? ""),
    ...all.filter(({ about }) => about.tags?.includes(tag.name)).map(({ path, method, about }) => operation(path, method, about)))));
}

draw().catch((error) => byId("operations").replaceChildren(`cannot read /openapi.json: ${error.message}`));
