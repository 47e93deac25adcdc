"""Chat templates written the ways that model files write them."""

from edgeqwen.text.chat_template import CHATML

# Tools in the system turn, calls as JSON, answers of tools in user turns.
TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "Tools:" }}
    {%- for tool in tools %}
        {{- '\\n' ~ (tool | tojson) }}
    {%- endfor %}
    {{- "\\nAnswer with <tool_call>{...}</tool_call>.<|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}
        {%- continue %}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<response>' ~ message.content ~ '</response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content is defined and message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function if call.function is defined else call %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Cuts its own tokens and marks out of earlier answers, and writes variables of the file.
THINKING = """\
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(system='', first=true) %}
{%- for message in messages if message['role'] == 'system' %}
    {%- set ns.system = ns.system ~ message['content'] %}
{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- set content = message['content'] | default('', true) %}
    {%- if message['role'] == 'user' %}
        {{- '<|im_start|>' ~ content }}
        {%- set ns.first = false %}
    {%- elif message['role'] == 'assistant' %}
        {%- set cut = '<tool_call>' in content %}
        {%- if cut %}
            {%- set content = content.split('<tool_call>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_end|>' + content + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_end|><tool_call>\\n' }}{% endif %}
"""

# Macros, block sets, filters, slices and loops of every sort.
EVERYTHING = """\
{% macro turn(role, text='') %}
<|im_start|>{{ role }}
{{ text | trim }}{{ caller() if caller else '' }}<|im_end|>
{% endmacro %}
{%- set roles = {'user': 'user', 'assistant': 'assistant', 'tool': 'user', 'system': 'system'} %}
{%- set head %}{{ messages | length }} messages, {{ messages | map(attribute='role') | unique |
sort | join('/') }}{% endset %}
{{- turn('system', head) }}
{%- for message in (messages[1:] if messages[0].role == 'system' else messages) %}
{%- set parts = [message.content] if message.content is string else message.content %}
{{- turn(roles[message.role] or 'user', (parts or []) | select('string') | join('|')) }}
{%- if loop.nextitem is defined and loop.nextitem.role == message.role %}{% break %}{% endif %}
{%- endfor %}
{%- call turn('notes') %}{% filter upper %}{{ messages[-1].role[:3] }}{% endfilter %}{% endcall %}
{%- for key, value in messages[0].items() %}{{ key }}={{ value | string | length }};{% endfor %}
{%- for n in range(3) %}{{ loop.cycle('a', 'b') }}{{ n * 2 ** 3 // 3 % 5 - 1 }}{% endfor %}
{%- if 'x' not in roles and 1 < 2 <= 2 and (1 is odd) and not none -%}
{{ '|' ~ 1.5 ~ true }}{% endif %}
{%- generation %}{{ messages[0]['content'] | default('-') | replace('a', 'b') | upper }}
{%- endgeneration %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""

ALL = {"chatml": CHATML, "tools": TOOLS, "thinking": THINKING}
