"""Vocabularies of the synthetic sample that serve one kind of task, graded by difficulty where it shows."""

from centroute.datasets.synthetic_vocabulary import Vocabulary, graded, words

WORDS: dict[str, Vocabulary] = {
    # Code
    "programming": graded(
        {
            -0.5: "Python",
            -0.3: "JavaScript",
            -0.2: "Java",
            0.0: "TypeScript, Go, C#",
            0.1: "Ruby",
            0.2: "C, Kotlin, Swift",
            0.3: "C++",
            0.5: "Rust, Scala",
            0.7: "Elixir",
            0.8: "Haskell",
            0.9: "Fortran",
            1.0: "OCaml",
            1.3: "Prolog",
            1.4: "COBOL",
        }
    ),
    "code_task": graded(
        {
            -1.0: "reverses a string",
            -0.8: "counts the words of a text file",
            -0.7: "checks whether two strings are anagrams",
            -0.6: "removes duplicates from a list and keeps the order",
            -0.5: "merges two sorted lists, converts Roman numerals to integers",
            -0.2: """
                parses a date such as {day} {month} {year}, reads a CSV file of {company} and returns the
                {few} largest amounts
            """,
            -0.1: "groups {product} orders by month and sums their value",
            0.2: "validates an IBAN",
            0.3: """
                finds the longest palindrome within a string, downloads {tens} files and retries each at most
                {small} times
            """,
            0.5: "evicts the least recently used of {hundreds} cached pages",
            0.6: """
                computes the shortest path between two stations of a railway map, solves a Sudoku by
                backtracking
            """,
            0.8: """
                parses arithmetic expressions with brackets and evaluates them, computes the edit distance of
                two texts in linear memory
            """,
            1.0: "schedules {tens} jobs with dependencies on {small} workers",
        }
    ),
    "edge_case": words("""
        empty input, negative numbers, Unicode text, very long lines, missing values, duplicate keys, leap
        years, several time zones, {thousands} entries, nested lists, white space at the end, numbers beyond
        64 bits
    """),
    "identifier": words("""
        merge_ranges, top_customers, parse_invoice, count_words, nearest_city, rolling_mean, split_text,
        to_celsius, find_cycle, rank_players, next_holiday, dedupe_rows, format_price, load_config,
        valid_email, pack_boxes
    """),
    "code_error": words("""
        a type error, an index error, a null pointer exception, a stack overflow, a deadlock, a key error, a
        borrow checker error, a segmentation fault, an encoding error, an integer overflow
    """),
    "code_quality": words("shorter, faster, easier to test, free of side effects, idiomatic, easier to read"),
    "data_structure": graded(
        {
            -0.3: "linked list",
            -0.2: "hash map",
            0.1: "priority queue, binary search tree",
            0.2: "ring buffer",
            0.3: "trie",
            0.4: "least recently used cache",
            0.9: "Fenwick tree, skip list, segment tree",
        }
    ),
    "operation": words("""
        insert, delete, lookup, pop the smallest element, range queries, iteration in order, merge
    """),
    "table": words("""
        customers, orders, invoices, flights, employees, shipments, products, bookings, payments, students
    """),
    "sql_task": {
        "list the {few} rows with the highest amount": -0.5,
        "count the entries of each month of {year}": -0.3,
        "find the entries without a partner in the other table": 0.1,
        "compute a running total for each customer": 0.5,
        "find customers who bought in {month} but not in {month_2} of {year}": 0.5,
        "rank the cities by median amount and show the difference to the previous rank": 1.0,
    },
    "regex_target": words("""
        e-mail addresses, dates such as {day}.{month}.{year}, hexadecimal colours, prices in euros, IPv4
        addresses, hashtags with accents, version numbers such as {small}.{tens}.{few}, quoted strings with
        escapes, licence plates of {city}, times such as {hour}:{minute}
    """),
    "shell_task": words("""
        deletes all empty files under the folder {identifier}, counts the lines of {tens} log files, renames
        all .jpeg files to .jpg, shows the {few} largest folders, finds files changed within {small} days,
        replaces {name} by {name_2} in all text files, prints column {few} of a CSV file sorted by number
    """),
    "code_concept": words("""
        a process and a thread, an interface, inheritance, composition, a closure, a generator, an iterator, a
        shallow copy, a deep copy, a mutex, a channel, a pointer, a reference, a monad, a coroutine, a macro
    """),
    "snippet": {
        "```python\ndef {identifier}(rows):\n    total = 0\n    for i in range(1, len(rows)):\n        "
        "total += rows[i] * {few}\n    return total / len(rows)\n```": -0.4,
        "```python\nprices = [{tens}, {hundreds}, {tens_2}]\ndef {identifier}(extra=[]):\n    "
        "extra.append({few})\n    return extra + prices\nprint({identifier}())\nprint({identifier}())\n"
        "```": 0.0,
        "```javascript\nfor (var i = 0; i < {small}; i++) {\n  setTimeout(() => console.log(i * {few}), "
        "{hundreds});\n}\n```": 0.1,
        '```java\nString a = "{name}";\nString b = new String("{name}");\nSystem.out.println(a == b);\n'
        "```": -0.3,
        "```c\nint *{identifier}(int n) {\n    int values[{tens}];\n    for (int i = 0; i <= n; i++) "
        "values[i] = i * {few};\n    return values;\n}\n```": 0.3,
        "```go\nvar wg sync.WaitGroup\nfor i := 0; i < {tens}; i++ {\n    go func() { wg.Add(1); total "
        "+= {few}; wg.Done() }()\n}\nwg.Wait()\n```": 0.8,
        '```rust\nlet mut names = vec!["{name}", "{name_2}"];\nlet first = &names[0];\n'
        'names.push("{name_3}");\nprintln!("first: {}", first);\n```': 0.6,
        "```sql\nSELECT city, SUM(amount)\nFROM {table}\nWHERE SUM(amount) > {hundreds}\nGROUP BY city;\n"
        "```": 0.0,
        "```haskell\n{identifier} :: [Int] -> Int\n{identifier} (x:xs) = x * {few} + {identifier} xs\n"
        "```": 0.7,
    },
    # Mathematics
    "function_of_x": graded(
        {
            -0.5: "x^{few} + {tens}x, {small}x^2 - {tens}x + {few}",
            -0.1: "sin({small}x)",
            0.3: "sqrt({small}x + {tens})",
            0.4: "x e^({small}x), ln(x^2 + {small})",
            0.5: "x ln(x + {few})",
            0.6: "1 / (x^2 + {tens})",
            0.9: "x^{few} cos({small}x)",
            1.1: "e^(-x^2 / {small})",
        }
    ),
    "card": words("ace, king, queen, heart, spade, red card, face card, seven"),
    "theorem": {
        "the square root of {tens} is irrational unless {tens} is a perfect square": 0.0,
        "there are infinitely many primes of the form 4k + 3": 0.5,
        "the sum of two even numbers is even": -1.5,
        "n^3 - n is divisible by 6 for every whole number n": 0.0,
        "among any {tens} whole numbers two differ by a multiple of {few}": 0.1,
        "every continuous function on a closed interval has a maximum": 0.6,
        "a graph with {tens} vertices of odd degree has an even number of them": 0.3,
        "{small}^n > n^{few} for all large n": 0.3,
    },
    "compounding": words("yearly, monthly, daily, quarterly, continuously"),
    "shape": words("""
        a rectangle, a right triangle, a rhombus, an ellipse, a kite, a parallelogram, an isosceles trapezium
    """),
    # Translation
    "language": graded(
        {
            -0.6: "Spanish, French, German",
            -0.3: "Italian, Portuguese, Dutch",
            0.0: "Swedish, Polish, Japanese, Korean, Turkish, Mandarin Chinese",
            0.3: "Greek, Czech, Hindi, Arabic, Finnish, Vietnamese, Indonesian",
            0.7: "Swahili, Estonian, Georgian, Tamil, Welsh, Icelandic",
            1.3: "Yoruba, Quechua, Basque, Maltese, Khmer, Tibetan",
            1.7: "Faroese, Romansh, Sámi, Tigrinya",
        }
    ),
    "sentence": {
        "The train to {city} leaves at {hour}:{minute}.": -0.4,
        "Where can I buy a {colour} {product}?": -0.4,
        "I have lived in {city} for {small} years.": -0.4,
        "My {product} broke on {weekday}, and I would like my {tens} euros back.": 0.0,
        "Could you tell {name} that the meeting moves to {weekday}?": -0.1,
        "We regret to inform you that the {product} you ordered is out of stock.": 0.1,
        "Had {name} known about {topic}, everything would have turned out differently.": 0.5,
        "The more {name} thinks about {topic}, the less there is to say.": 0.4,
        "Nobody but {name} had noticed that the {animal} was gone.": 0.3,
        "Please send the contract with {company} to {name} {surname} before {day} {month}.": 0.0,
        "The weather in {city} is lovely in {month}.": -0.5,
        "It is not so much the cost of {topic} that worries us as the time it takes.": 0.6,
        "Would you mind if {name} brought a {animal} to the party?": 0.1,
        "Two coffees and {small} pastries, please.": -0.6,
    },
    "idiom": words("""
        to let the cat out of the bag, once in a blue moon, to kick the bucket, to cost an arm and a leg, the
        early bird catches the worm, to beat about the bush, to bury the hatchet, a storm in a teacup, to burn
        the midnight oil, to have two left feet, to call it a day, every cloud has a silver lining
    """),
    "register": words("friendly, formal, polite, humorous, brief, cordial, warm, businesslike"),
    "everyday_word": words("""
        hedgehog, lighthouse, thunderstorm, wheelbarrow, grandchild, screwdriver, blackberry, neighbour,
        dragonfly, eyelash, toothpaste, snowflake, bookshop, sunset, thumb, staircase, mushroom, kettle,
        homesickness, gossip, threshold, ferry, apricot, shoelace, puddle, loneliness, pencil sharpener,
        nephew, cobweb, handshake
    """),
    "dish": words("""
        grilled trout with {fruit} compote, lentil soup from {city}, {fruit} tart with cream, stuffed peppers
        and rice, pumpkin risotto, rye bread with smoked salmon, {fruit} dumplings, slow-cooked lamb with
        beans
    """),
    "couplet": words("""
        The lamp is low / the night is long, Beyond the hill / I hear a song, The river takes / what rivers
        may, And leaves the stones / in morning grey, I kept your {colour} coat / you kept my key, The boat
        from {city} / went out to sea, The {animal} sleeps / beneath the snow
    """),
    # Facts
    "country": graded(
        {
            -0.6: "France, Japan, Canada, Brazil, Egypt, Australia",
            -0.2: "Norway, Kenya, Peru, Vietnam, Portugal, Morocco, Chile, Poland",
            0.3: "Mongolia, Slovenia, Bolivia, Ghana, Laos, Estonia, Uruguay, Nepal",
            0.8: "Burkina Faso, Kyrgyzstan, Suriname, Bhutan, Moldova, Gabon, Oman",
            1.3: "Vanuatu, Comoros, Eswatini, Nauru, Djibouti, Lesotho, Palau",
        }
    ),
    "element": graded(
        {
            -0.5: "iron, gold, oxygen, copper, silver, sodium",
            0.0: "tin, mercury, nickel, zinc, lead, silicon, tungsten",
            0.6: "antimony, cobalt, zirconium, iridium, gallium, strontium",
            1.2: "dysprosium, hafnium, rhenium, thulium, tellurium, protactinium",
        }
    ),
    "invention": graded(
        {
            -0.6: "the World Wide Web",
            -0.5: "the telephone, the printing press",
            -0.4: "penicillin, the Braille alphabet",
            -0.3: "the diesel engine",
            -0.2: "dynamite, the steam engine",
            0.3: "the microwave oven, the barometer",
            0.4: "Velcro",
            0.5: "the ballpoint pen, the stethoscope",
            0.6: "the sewing machine",
            0.7: "the zip fastener",
            0.8: "the traffic light",
            0.9: "the safety pin",
            1.0: "the tin can, the seismograph",
            1.2: "the parking meter",
        }
    ),
    "event": graded(
        {
            -0.7: "the first Moon landing",
            -0.6: "the French Revolution, the fall of the Berlin Wall",
            -0.3: "the Battle of Hastings",
            -0.2: "the Great Fire of London",
            0.2: "the Congress of Vienna, the opening of the Suez Canal",
            0.3: """
                the eruption of Krakatoa, the Meiji Restoration, the Peace of Westphalia, the Lisbon
                earthquake
            """,
            0.5: "the Treaty of Tordesillas, the Carnation Revolution",
            0.6: """
                the Battle of Lepanto, the Tunguska explosion, the Defenestration of Prague, the first flight
                across the English Channel, the Sack of Constantinople
            """,
            0.7: "the Taiping Rebellion",
            1.2: "the War of Jenkins' Ear",
        }
    ),
    "an_animal": words("""
        a horse, an elephant, a hamster, a blue whale, a kangaroo, a giraffe, a lynx, a hedgehog, a sea otter,
        a fruit bat, a badger, a llama, a walrus, a dolphin, a rhinoceros, a squirrel
    """),
    "book": graded(
        {
            -0.6: "War and Peace",
            -0.5: "Don Quixote, Frankenstein, Moby-Dick",
            -0.2: "The Trial, Middlemarch",
            0.0: "Things Fall Apart",
            0.1: "The Master and Margarita",
            0.2: "The Tale of Genji",
            0.3: "Invisible Cities",
            0.5: "The Good Soldier Švejk, The Pillow Book, Oblomov, The Leopard",
            0.6: "Pedro Páramo, Effi Briest, Snow Country",
            0.8: "Kristin Lavransdatter",
            0.9: "Season of Migration to the North",
            1.0: "Max Havelaar",
        }
    ),
    "science_term": words("""
        photosynthesis, osmosis, plate tectonics, ocean acidification, natural selection, the greenhouse
        effect, quantum entanglement, nuclear fusion, herd immunity, entropy, bioluminescence, symbiosis,
        radioactive decay, soil erosion, light pollution, gene expression, superconductivity, echolocation,
        the Doppler effect, continental drift, catalysis, antibiotic resistance, dark matter, surface tension
    """),
    "claim": graded(
        {
            -0.3: "lightning never strikes twice, the Great Wall can be seen from the Moon",
            -0.2: "a goldfish remembers only the last few seconds",
            0.1: "honey found in a tomb can still be eaten, a day on Venus is longer than its year",
            0.2: "more people live in {country} than in {country_2}, glass is a slow liquid",
            0.3: "bananas are radioactive, {element} is heavier than {element_2}",
            0.4: "{invention} is older than {invention_2}",
            0.5: "{animal}s sleep with one eye open",
            0.6: "{country} has more lakes than {country_2}",
        }
    ),
    "confusable": words("""
        a virus and a bacterium, weather and climate, a crocodile and an alligator, a comet and an asteroid,
        speed and velocity, a hare and a rabbit, jam and marmalade, fission and fusion, a moth and a
        butterfly, Great Britain and the United Kingdom, mass and weight, an alloy and a compound, a meteor
        and a meteorite, a glacier and an iceberg, a simile and a metaphor, inflation and deflation, a
        tortoise and a turtle
    """),
    # Writing
    "poem_form": graded(
        {
            -0.4: "poem",
            -0.3: "free-verse poem",
            -0.1: "song text",
            0.0: "haiku",
            0.2: "limerick",
            0.3: "ballad",
            0.6: "sonnet",
            1.1: "ghazal",
            1.2: "villanelle",
            1.5: "sestina",
        }
    ),
    "muse": words("""
        the first frost, an empty railway station, a lost umbrella, moving house, the smell of rain, a
        lighthouse, the night shift, my father's workshop, a broken violin, late trains, the sea in {month},
        an unread letter, the last day of school, a {colour} door, old maps, a garden in {city}, a stubborn
        {animal}, borrowed books, thunder, a shadow, a forgotten {product}, the sound of a {animal}
    """),
    "genre": words("""
        detective, science fiction, gothic, fairy tale, pirate, romance, western, satirical, horror,
        historical, magical realist, spy
    """),
    "trade": words("""
        a retired tram driver, a night nurse, a beekeeper, a lighthouse keeper, a young lawyer, a piano tuner,
        a baker, a chess coach, a cartographer, an unemployed actor, a marine biologist, a locksmith, a
        translator, a geography teacher, a bicycle courier, a watchmaker, a forensic accountant, a puppeteer
    """),
    "venture": words("""
        a bakery, a bookshop, a repair café, a choir, a climbing hall, a podcast about {topic}, a start-up
        that rents out {product}s, a tea room, a puppet theatre, a chess club, a running group, a {animal}
        sanctuary
    """),
    "occasion": words("""
        a wedding in {city}, a retirement party, the opening of {venture}, a school reunion, a 50th birthday,
        a farewell party, the anniversary of {company}, a housewarming
    """),
    "constraint": {
        "Use at most {hundreds} words.": 0.0,
        "Do not use the letter q.": 0.4,
        "Every sentence must begin with a different letter.": 0.9,
        "End with a question.": -0.2,
        "Make it funny.": 0.0,
        "Write it in the present tense and mention a {animal}.": 0.1,
        "Mention {few} different sounds.": 0.2,
        "The words {colour}, {product} and {animal} must appear in this order.": 0.5,
    },
    "constraint_clause": graded(
        {
            -0.3: "a {animal} speaks",
            0.0: "the last line repeats the first",
            0.1: "each line names a {colour} thing",
            0.6: "every line has {few} words",
            0.8: "the first letters spell {name}",
            0.9: "no word repeats",
        }
    ),
    "story_start": words("""
        When {name} came back to {city} the {product} was still on the table., Nobody in {city} had seen a
        {animal} for {tens} years until {name} opened the window., The letter from {company} arrived on a
        {weekday} and {name} knew at once that it was not meant for her., At {hour}:{minute} the lights went
        out and {name} heard the {animal} again., {name} had promised {name_2} never to sell the {colour}
        {product}., On the {day}th of {month} all the clocks of {city} stopped.
    """),
    # Logic
    "party": {
        "{name}, {name_2} and {name_3}": -0.6,
        "{name}, {name_2}, {name_3} and {name_4}": 0.0,
        "{name}, {name_2}, {name_3}, {name_4} and {name_5}": 0.6,
        "{name}, {name_2}, {name_3}, {name_4}, {name_5} and {name_6}": 1.1,
    },
    "knights": {
        "{name} and {name_2}": -0.4,
        "{name}, {name_2} and {name_3}": 0.3,
    },
    "knight_claim": {
        '{name} says: "We are both knaves."': -0.4,
        '{name} says: "At least one of us is a knave."': -0.1,
        '{name} says: "{name_2} is a knave." {name_2} says: "We are of the same kind."': 0.4,
        '{name} says: "If {name_2} is a knight, then I am a knave." {name_2} says nothing.': 0.8,
        '{name} says: "{name_2} would say that I am a knight." {name_2} says: "{name} is a knave."': 0.8,
    },
    "group": words("""
        bakers, sailors, poets, gardeners, pilots, cyclists, chess players, dentists, singers, violinists,
        farmers, students, early risers, beekeepers, tall people, left-handed people, tea drinkers, night owls
    """),
    "quantified": graded(
        {
            -0.5: "All",
            -0.2: "No",
            0.2: "Some",
            0.4: "Most",
            0.6: "Not all",
        }
    ),
    "sequence": {
        "start at {tens}, add {few}, double, add {few}, double": 0.0,
        "1, 1, 2, 3, 5, 8, 13, each of them times {few}": -0.2,
        "2, 6, 12, 20, 30, each of them plus {tens}": 0.3,
        "the multiples of {few} that are greater than {hundreds}": -0.6,
        "1, 11, 21, 1211, 111221": 0.9,
        "the primes above {hundreds}": 0.2,
        "O, T, T, F, F, S, S": 0.6,
        "the squares from {small} on, alternating with multiples of {tens}": 0.4,
    },
    "fruit": words("apple, pear, plum, cherry, apricot, fig, quince, peach, gooseberry, mulberry"),
    "wrong_label": words("mixed, {fruit}, {fruit_2}"),
    "kin": words("mother, father, brother, sister, aunt, uncle, daughter, son, grandmother, nephew, cousin"),
    "vehicle": words("bus, tram, car, train, underground, ferry, taxi"),
    "field": words("""
        service name, error message, time stamp, log level, line that is not INFO, service that failed
    """),
    # Extraction
    "letter_field": words("""
        deadline, total amount, telephone number, new address, order number, name of the visitor
    """),
    "log_level": words("INFO, WARNING, ERROR, DEBUG, CRITICAL"),
    "service": words("""
        billing, search, checkout, mailer, login, reports, uploads, gateway, inventory, scheduler, thumbnails,
        backup
    """),
    "log_message": words("""
        request took {hundreds} ms, connection to {city} lost, retry {small} of {few}, user {name} signed in,
        disk {percent} % full, cache miss for order {thousands}, time-out after {tens} s, {small} jobs done,
        certificate expires in {day} days, invalid token from {surname}, payment of {tens}.{cents} euros
        refused
    """),
}
