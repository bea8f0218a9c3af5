"""OpenAI's Python client, unmodified, against a server: python-openai.py URL DOCUMENT. Prints what it got as JSON."""

import base64
import json
import sys

import openai

url, document = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is the name?"}]
sampled = {"model": model, "messages": messages, "temperature": 1, "seed": 7, "max_tokens": 12}


def streamed():
    options = {"include_usage": True}
    text, usage = "", None
    for chunk in client.chat.completions.create(**sampled, stream=True, stream_options=options):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    return {"text": text, "tokens": usage.completion_tokens}


def resumed():
    extra = {"resume": True, "request_id": "from-python"}
    stream = client.chat.completions.create(**sampled, stream=True, extra_body=extra)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def read(path):
    with open(path, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [image, {"type": "text", "text": "What is the total?"}]
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], max_tokens=16
    )
    return answer.choices[0].message.content


def refusal(**body):
    try:
        client.chat.completions.create(**{**sampled, **body})
    except openai.APIStatusError as error:
        return {"type": type(error).__name__, "param": error.param, "code": error.code}
    return None


whole = client.chat.completions.create(**sampled, logprobs=True, top_logprobs=2)
completion = client.completions.create(model=model, prompt=["The name is", "A"], n=2, logprobs=1)
print(
    json.dumps(
        {
            "model": model,
            "whole": {
                "text": whole.choices[0].message.content,
                "tokens": whole.usage.completion_tokens,
            },
            "logprobs": len(whole.choices[0].logprobs.content),
            "streamed": streamed(),
            "resumed": resumed(),
            "read": read(document),
            "choices": [choice.index for choice in completion.choices],
            "refusals": [refusal(temperature=-1), refusal(model="gpt-4o")],
        }
    )
)
