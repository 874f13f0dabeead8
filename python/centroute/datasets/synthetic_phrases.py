"""Phrase tables of the synthetic sample: eight kinds of task, their templates and their vocabularies.

``KINDS[kind]`` maps templates to difficulty in logits; `centroute.datasets.synthetic_texts` fills the slots.
"""

from centroute.datasets.synthetic_vocabulary import SHARED, Passage, Vocabulary
from centroute.datasets.synthetic_words import WORDS

OPENINGS: tuple[str, ...] = (
    "Hi! ",
    "Hello, ",
    "Quick question. ",
    "I need some help with this. ",
    "For a class that I teach: ",
    "My colleague {name} asked me this. ",
    "I am preparing for {weekday}. ",
    "Could you help me? ",
    "One more thing. ",
    "Task: ",
    "Good morning. ",
    "For work at {company}: ",
)

CLOSINGS: tuple[str, ...] = (
    "Keep it short.",
    "Explain your reasoning.",
    "Thank you!",
    "Answer only, please.",
    "I need this by {weekday}.",
    "Use plain language.",
    "Please be precise.",
    "Regards, {name}",
    "It is for {relation}.",
    "I am a beginner.",
)

CODE: dict[str, float] = {
    "Write a function in {programming} that {code_task}.": -0.5,
    "Write a function `{identifier}` in {programming} that {code_task}. It must handle {edge_case}.": 0.1,
    "Why does this {programming} code raise {code_error}?\n\n{snippet}": 0.2,
    "Find the bug and give the corrected version:\n\n{snippet}\n\nIt should handle {edge_case}.": 0.2,
    "Refactor the code below to be {code_quality}, and keep its behaviour.\n\n{snippet}": 0.0,
    "Write unit tests in {programming} for a function that {code_task}. Cover {edge_case} and "
    "{edge_case_2}.": 0.1,
    "Write an SQL query: from the tables {table} and {table_2}, {sql_task}.": -0.2,
    "Translate this code to {programming}:\n\n{snippet}": 0.1,
    "Implement a {data_structure} in {programming} with {operation} and {operation_2} in O(log n) time.": 0.9,
    "Design a thread-safe {data_structure} in {programming}. Several writers call {operation} at the "
    "same time.": 1.4,
    "What does the following code print, and why?\n\n{snippet}": -0.3,
    "Give a regular expression that matches {regex_target}, and explain every part.": -0.2,
    "Write a shell one-liner that {shell_task}.": -0.4,
    "Explain the difference between {code_concept} and {code_concept_2} in {programming} with an "
    "example.": -0.7,
    "Our {programming} service at {company} leaks memory after about {small} hours. It {code_task} for "
    "every request and keeps a {data_structure} of {thousands} entries. How do I find the leak?": 1.1,
}

MATHEMATICS: dict[str, float] = {
    "What is {hundreds} times {tens}?": -1.0,
    "Compute {percent} % of {thousands}.": -1.2,
    "{name} buys {small} {product}s at {tens}.{cents} euros each and pays with {thousands} euros. How "
    "much change?": -0.8,
    "Solve for x: {few}x + {tens} = {hundreds}.": -0.8,
    "Find all real solutions of x^2 - {tens}x + {hundreds} = 0.": -0.1,
    "A train leaves {city} at {hour}:{minute} with {tens} km/h. A second train leaves {city_2}, "
    "{hundreds} km away, {small} minutes later with {tens_2} km/h towards it. When do they meet?": 0.6,
    "A tank holds {thousands} litres. Pipe A fills {tens} litres a minute and pipe B drains {few} litres "
    "a minute. After {small} minutes pipe B is closed. How long until the tank is full?": 0.5,
    "What is the derivative of f(x) = {function_of_x} with respect to x?": 0.1,
    "Evaluate the integral of {function_of_x} from 0 to {small}.": 0.9,
    "How many different ways are there to seat {few} guests at a round table if {name} and {name_2} "
    "refuse to sit side by side?": 0.7,
    "{name} draws {small} cards from a deck of 52 without putting them back. What is the probability "
    "that exactly {small_2} of them are {card}s?": 0.8,
    "Prove that {theorem}.": 1.5,
    "The first term of an arithmetic sequence is {tens} and the common difference is {few}. What is the "
    "sum of the first {hundreds} terms?": 0.0,
    "{name} invests {thousands} euros at {few} % a year, compounded {compounding}. What is it worth "
    "after {small} years? {name_2} adds {hundreds} euros at the end of each year. How much more does "
    "{name_2} have?": 0.6,
    "Find the remainder when {tens}^{hundreds} is divided by {few}.": 0.9,
    "What is the area of {shape} with sides of {tens} cm and {tens_2} cm?": -0.6,
    "Given the matrix [[{small}, {few}], [{tens}, {small_2}]], find its determinant and its "
    "eigenvalues.": 0.5,
    "In a survey of {hundreds} households in {city}, {tens} own a car, {tens_2} own a bicycle and {few} "
    "own both. How many own neither?": -0.2,
}

TRANSLATION: dict[str, float] = {
    'Translate into {language}: "{sentence}"': -0.3,
    'How do you say "{sentence}" in {language}?': -0.4,
    'Translate this message to {relation} into {language} and keep it {register}:\n\n"{sentence} '
    '{sentence_2}"': 0.1,
    "Translate the following paragraph from English into {language}.\n\n{report}": 0.4,
    'Give three translations of "{idiom}" into {language} and say which one a native speaker would use.': 0.6,
    "What is the {language} word for {everyday_word}, and how is it pronounced?": -0.7,
    'Translate the menu entry "{dish}" into {language} for guests from {city}.': 0.0,
    'Is "{sentence}" hard to translate into {language}? Translate it and explain each choice.': 0.3,
    "Translate into {language} and then into {language_2}: {sentence}": 0.5,
    "Localise this user-interface text for {language} speakers. Keep the placeholders.\n\nWelcome back, "
    "%s! You have %d new messages from {company}. {sentence}": 0.4,
    "Translate the poem into {language} and keep the rhyme:\n\n{couplet}\n{couplet_2}": 1.1,
    "Write the date {day} {month} {past} and the sum of {thousands} euros out in words in {language}.": 0.2,
    'Which is the better {language} rendering of the idiom "{idiom}" in a {register} letter?': 0.6,
    "Translate this legal clause into {language}: The tenant, {name} {surname}, shall pay {hundreds} "
    "euros by day {day} of each month. {sentence}": 0.7,
}

SUMMARISATION: dict[str, float] = {
    "Summarise the following text in {few} sentences.\n\n{report}": -0.3,
    "Give me the main points of this article as bullet points:\n\n{report}": -0.4,
    "Summarise these meeting notes for {relation}, who was not there.\n\n{meeting}": 0.0,
    "TL;DR?\n\n{report}": -0.6,
    "Write a one-sentence headline for this text.\n\n{report}": -0.5,
    "What did the participants agree on, and who does what by when?\n\n{meeting}": 0.3,
    "Condense this customer review to at most {tens} words:\n\n{review}": -0.3,
    "Summarise the abstract below for a reader without a background in science.\n\n{abstract}": 0.4,
    "Compare the two reviews and summarise where they disagree.\n\nReview A: {review}\n\nReview B: "
    "{review_2}": 0.7,
    "Write an executive summary of at most {tens} words. Keep every number.\n\n{report}\n\n{meeting}": 0.8,
    "Summarise the research abstract in {few} bullet points and name its main weakness.\n\n{abstract}": 0.6,
    "Shorten this to a text message for {relation}:\n\n{meeting}": -0.1,
    "Make an outline with headings from the following notes.\n\n{meeting}\n\n{report}": 0.5,
}

FACTS: dict[str, float] = {
    "What is the capital of {country}?": -0.7,
    "Which currency is used in {country}?": -0.3,
    "What is the chemical symbol of {element}, and what is its atomic number?": -0.2,
    "Who invented {invention}, and in which year?": 0.1,
    "In which year did {event} take place?": 0.1,
    "What do {animal}s eat, and where do they live?": -0.8,
    "How long does {an_animal} carry its young?": 0.6,
    "Which countries share a land border with {country}?": 0.4,
    "Who wrote {book}, and when was it first published?": 0.1,
    "What is the highest mountain of {country}, and how high is it in metres?": 0.7,
    "Explain in two sentences what {science_term} is.": -0.4,
    "Is it true that {claim}?": -0.1,
    "What happened first: {event} or {event_2}?": 0.2,
    "Which language do most people in {country} speak, and which other languages are official?": 0.3,
    "At which temperature does {element} melt at normal pressure?": 0.8,
    "How are {science_term} and {science_term_2} related?": 0.3,
    "Name {few} rivers of {country}.": 0.6,
    "What is the difference between {confusable}?": -0.4,
}

WRITING: dict[str, float] = {
    "Write a {poem_form} about {muse}.": 0.0,
    "Write the opening of a {genre} story set in {city}. The main character is {name}, {trade}.": -0.1,
    "Write a {register} e-mail to {relation} about {topic}.": -0.6,
    "Think of {few} names for {venture} in {city}.": -0.7,
    "Write a short speech for {occasion}. {name} will give it, and it should mention {muse}.": 0.0,
    "Tell a bedtime story about a {animal} who is afraid of {muse}.": -0.4,
    "Write a dialogue between {name}, {trade}, and {name_2}, {trade_2}, who argue about {topic}. "
    "{constraint}": 0.5,
    "Rewrite this text in the style of a {genre} novel:\n\n{review}": 0.4,
    "Write a product description for a {colour} {product} made by {company}. Tone: {register}.": -0.5,
    "Compose a {poem_form} about {topic} in which {constraint_clause}.": 1.2,
    "Continue the story in about {hundreds} words:\n\n{story_start}": 0.2,
    "Write a {genre} scene in {few} paragraphs. {name} finds {muse} in {city}; {name_2} must not learn "
    "of it. {constraint}": 0.7,
    "Write an opinion piece for the local paper of {city} on {topic}. {constraint}": 0.3,
    "Draft a cover letter for {name} {surname}, {trade}, who applies at {company}.": -0.4,
}

LOGIC: dict[str, float] = {
    "{party} stand in a queue.\n- {clues}\nWho is at the front?": 0.5,
    "On an island knights always tell the truth and knaves always lie. You meet {knights}. "
    "{knight_claim} Who is a knight?": 0.5,
    "All {group} are {group_2}. {quantified} {group_2} are {group_3}. Does it follow that some {group} "
    "are {group_3}?": 0.0,
    "Describe and continue the sequence: {sequence}.": 0.0,
    "If {month} {day} is a {weekday}, which day of the week is it {hundreds} days later?": 0.3,
    "{name} is {small} years older than {name_2}. In {few} years {name} will be twice as old as "
    "{name_2}. How old are they now?": -0.1,
    "Three boxes are labelled {fruit}, {fruit_2} and mixed. Every label is wrong. {name} takes one piece "
    "from the box labelled {wrong_label}: {fruit}. What is in each box?": 0.2,
    "{name} must take a {animal}, a {animal_2} and a basket of {fruit} across a river. The boat holds "
    "one of them besides {name}. The {animal} would eat the {animal_2}, and the {animal_2} would eat the "
    "{fruit}. How is it done?": 0.4,
    "You have a {few}-litre jug and a {tens}-litre jug. Can you measure exactly {small} litres? Give the "
    "steps.": 0.7,
    "{name} is the {kin} of {name_2}, and {name_2} is the {kin_2} of {name_3}. How are {name} and "
    "{name_3} related?": 0.0,
    "{party} finished a race. There were no ties.\n- {clues}\nGive the complete order.": 0.8,
    "{party} each own one pet and live in houses painted in different colours.\n- {house_clues}\nWho "
    "owns the {animal}?": 1.2,
    "Among {tens} coins one is lighter than the others. How many weighings with a balance does {name} "
    "need?": 0.3,
    "If it rains, {name} takes the {vehicle}. {name} took the {vehicle} on {weekday}. Did it rain?": -0.7,
    "Every {weekday} {name} wears a {colour} shirt, unless it is a holiday. Today {name} wears a "
    "{colour_2} shirt. What can we conclude?": -0.4,
}

EXTRACTION: dict[str, float] = {
    "Extract all names, dates and amounts from the text as JSON.\n\n{letter}": -0.1,
    "Return the order below as JSON with the keys customer, items, quantity and total.\n\n{order}": -0.2,
    "List every {field} in this log, one per line.\n\n{log}": -0.2,
    "Read the letter and return only the {letter_field} as plain text.\n\n{letter}": -0.5,
    "Turn these records into a CSV table with a header row:\n\n{records}": 0.0,
    'Fill this form from the e-mail: {"sender": "", "city": "", "deadline": ""}\n\n{letter}': 0.1,
    "Which of these log lines show an error? Give time and service for each.\n\n{log}": 0.3,
    "Classify the review as positive, negative or mixed, and quote the sentence that decides it.\n\n"
    "{review}": -0.3,
    "Extract all people with their role and company. Return a JSON array. Use null where something is "
    "not stated.\n\n{letter}\n\n{meeting}": 0.7,
    "From the report, extract each number with its unit and what it measures.\n\n{report}": 0.5,
    "Sort these records by amount, remove duplicates, and return YAML:\n\n{records}": 0.6,
    "Find the action items in the notes: owner, task, due date. Return a Markdown table.\n\n{meeting}": 0.3,
    "Does the order contain {product}s? Answer yes or no, and give the quantity.\n\n{order}": -0.6,
    "Merge the order and the letter into one JSON document. The schema has customer, items, dates and "
    "remarks; flag every contradiction.\n\n{order}\n\n{letter}": 1.0,
}

KINDS: dict[str, dict[str, float]] = {
    "code": CODE,
    "mathematics": MATHEMATICS,
    "translation": TRANSLATION,
    "summarisation": SUMMARISATION,
    "facts": FACTS,
    "writing": WRITING,
    "logic": LOGIC,
    "extraction": EXTRACTION,
}

_REPORT = (
    "The town of {city} will spend {thousands} thousand euros on {topic} over the next {small} years.",
    "A report published on {day} {month} {year} found that {percent} % of residents support the plan.",
    "{name} {surname}, who leads the project, called the result encouraging but warned of rising costs.",
    "Critics point out that a similar scheme in {city_2} was abandoned after {few} months.",
    "The contract went to {company}, which employs {hundreds} people in the region.",
    "Compared with last year, spending on {topic} rose by {percent_2} %; {topic_2} received slightly less.",
    "Shop owners near the station fear that the works will keep customers away until {month_2}.",
    "An independent review is to follow in {year_2}, and its findings will be made public.",
    "Pupils from {few_2} schools took part in a survey and named {topic_2} as their main concern.",
    "The council vote was close: {tens} members were in favour and {small_2} against.",
    "Experts at the university had asked for a trial period first, which the mayor refused.",
    "If the funds are not used by the end of {year_2}, they must be paid back.",
)

_MEETING = (
    "{name} chaired the meeting of {day} {month}; {name_2} from {company} took part by video.",
    "{name_2} will send the revised budget of {thousands} euros by {weekday}.",
    "The launch of the new {product} moves from {month} to {month_2}, because parts from {city} are late.",
    "{name_3} reported {hundreds} complaints about the {product_2}; most concern delivery.",
    "Nobody could say who owns the contract with {company_2}, so {name_4} will find out.",
    "It was agreed to hire {few} people for the office in {city_2}.",
    "{name_4} disagreed with the marketing plan and asked for a second opinion.",
    "The discount stays at {percent} % until the end of {month_2}.",
    "{name_3} is away from {day} {month_2} on, and {name} takes over meanwhile.",
    "The question of {topic} was postponed to the next meeting on {weekday_2}.",
    "Travel costs must be handed in within {tens} days from now on.",
)

_REVIEW = (
    "I bought the {colour} {product} from {company} in {month}, and it arrived {small} days late.",
    "The quality is far better than I expected for {tens} euros.",
    "After {few} weeks the handle came loose, and support in {city} took {small_2} days to answer.",
    "My whole family uses it every day.",
    "The manual is useless, but a friend of mine named {name} showed me how it works.",
    "It is lighter than the old model and fits into any bag.",
    "I would not buy it again.",
    "All in all I am happy with it, although the {colour_2} one looks nicer.",
    "The box was damaged and one screw was missing.",
    "Would recommend it to anyone who often travels to places like {city}.",
)

_ABSTRACT = (
    "We study the effect of {science_term} on populations of the {animal} near {city}.",
    "Over {small} years, {thousands} observations were collected at {tens} sites.",
    "A mixed-effects model shows a decline of {percent} % (95 % interval {few} to {tens_2} %).",
    "Contrary to earlier work, no link with {science_term_2} was found.",
    "The effect was strongest in {month} and vanished in {month_2}.",
    "Limitations include the small number of sites and missing data for {year}.",
    "Our results suggest that protection measures should begin {few_2} weeks earlier.",
    "The data and the code are available from the authors on request.",
)

_LETTER = (
    "I am writing about invoice {thousands} dated {day} {month} {year} for {hundreds}.{cents} euros.",
    "Please call me at +00 {hundreds_2} {thousands_2} or write to {surname}@example.org.",
    "We met {name_2} {surname_2}, head of sales at {company}, in {city} on {day_2} {month_2}.",
    "The payment of {tens} euros for the {product} has not reached us yet.",
    "My new address is {tens_2} Station Road, {city_2}.",
    "The deadline is {day_2} {month} {year_2}; after that a fee of {small}.{cents_2} euros applies.",
    "{name_3} from accounting will visit you on {weekday} at {hour}:{minute}.",
    "The order number is {surname}-{hundreds}-{few}.",
)

_LOG = tuple(
    f"{{year}}-0{{few}}-{{late_day}} {{hour{suffix}}}:{{minute{suffix}}} {{log_level{suffix}}} "
    f"{{service{suffix}}}: {{log_message{suffix}}}"
    for suffix in ("", "_2", "_3", "_4", "_5", "_6", "_7")
)

_RECORDS = tuple(
    f"{{name{suffix}}} {{surname{suffix}}}; {{city{suffix}}}; {{day{suffix}}} {{month{suffix}}}; "
    f"{{hundreds{suffix}}}.{{cents{suffix}}} euros; {{product{suffix}}}"
    for suffix in ("", "_2", "_3", "_4", "_5", "_6", "_7", "_8")
)

SLOTS: dict[str, Vocabulary] = (
    SHARED
    | WORDS
    | {
        "report": Passage(_REPORT, fewest=3, most=9, per_sentence=0.15, paragraph=4),
        "meeting": Passage(_MEETING, fewest=3, most=8, per_sentence=0.15, paragraph=4),
        "review": Passage(_REVIEW, fewest=2, most=6, per_sentence=0.12),
        "abstract": Passage(_ABSTRACT, fewest=3, most=6, per_sentence=0.15),
        "letter": (
            "Dear {name},\n\n{letter_body}",
            "Dear {name},\n\n{letter_body}\n\nYours sincerely, {name_4} {surname}",
            "To: {name}\nSubject: {product}\n\n{letter_body}\n\n{name_4}",
        ),
        "letter_body": Passage(_LETTER, fewest=3, most=7, per_sentence=0.15, paragraph=3),
        "log": Passage(_LOG, fewest=3, most=7, per_sentence=0.15, separator="\n"),
        "records": Passage(_RECORDS, fewest=3, most=8, per_sentence=0.15, separator="\n"),
        "order": Passage(
            (
                "{small} x {product} ({colour}), {tens}.{cents} euros each",
                "{small_2} x {product_2} ({colour_2}), {tens_2}.{cents_2} euros each",
                "{small_3} x {product_3}, {hundreds} euros in all",
                "Customer: {name} {surname}, {city}",
                "Delivery on {weekday}, {day} {month}",
                "Discount of {percent} % agreed with {name_2}",
                "Instead of the {product_2} please send a {product_4} if it is out of stock.",
            ),
            fewest=3,
            most=7,
            per_sentence=0.15,
            separator="\n",
        ),
        "clues": Passage(
            (
                "{name} is directly behind {name_2}.",
                "{name_3} is not last.",
                "{name_2} is ahead of {name_3}.",
                "{name} is neither first nor last.",
                "Exactly one person is between {name_2} and {name_3}.",
                "{name_3} is not next to {name}.",
            ),
            fewest=2,
            most=4,
            per_sentence=0.25,
            separator="\n- ",
        ),
        "house_clues": Passage(
            (
                "{name} lives in the {colour} house.",
                "The {animal} does not live in the {colour_2} house.",
                "{name_2} lives next to the owner of the {animal_2}.",
                "The {colour_3} house is to the left of the {colour} house.",
                "{name_3} owns neither the {animal} nor the {animal_3}.",
                "The owner of the {animal_2} is not {name}.",
                "The {animal_3} lives at one end of the street.",
            ),
            fewest=4,
            most=7,
            per_sentence=0.25,
            separator="\n- ",
        ),
    }
)
