// Renders Ollama templates with Go's own text/template, given what Ollama gives them.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type arguments map[string]any

func (a arguments) String() string { return compact(map[string]any(a)) }

type tool map[string]any

func (t tool) String() string { return compact(map[string]any(t)) }

type call struct {
	Function struct {
		Name      string
		Arguments arguments
	}
}

type message struct {
	Role, Content, Thinking string
	ToolCalls               []call
}

type request struct {
	Messages []message
	Tools    []tool
}

func compact(value any) string {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return strings.TrimSpace(text.String())
}

func main() {
	var input struct {
		Template string
		Requests []request
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("modelfile").Parse(input.Template))
	rendered := []string{}
	for _, given := range input.Requests {
		var text strings.Builder
		if err := parsed.Execute(&text, given); err != nil {
			panic(err)
		}
		rendered = append(rendered, text.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(rendered); err != nil {
		panic(err)
	}
}
