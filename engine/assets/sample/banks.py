"""The facts and texts behind the sample pool, all written by hand.

Every bank is graded: level 1 is the easiest and level 4 the hardest of its family. `generate.py`
turns them into rows; nothing here is computed.
"""

Graded = dict[int, tuple[tuple[str, str], ...]]
"""Level to (question, answer) pairs, or to (text, answer) where the question is the same."""

Date = tuple[int, int, int]
"""Year, month, day."""


def words(text: str) -> tuple[str, ...]:
    """The words of a text: lists of single words read better that way."""
    return tuple(text.split())


NAMES = words("Ana Ben Chloe Dev Ella Femi Grace Hugo Ines Jonas Kira Liam Mina Noah Olga Pia")

WORDS = words(
    "orange bicycle mountain letter window garden planet summer pepper kitchen blanket giraffe "
    "lantern island cricket thunder village compass diamond feather balloon harvest journey ladder "
    "mirror needle octopus parsnip rainbow saddle teacher umbrella violin whistle captain dolphin "
    "engine forest glacier hammock jacket kettle lobster meadow notebook orchard penguin"
)

PALINDROMES = ("level", "radar", "civic", "rotor", "kayak", "refer", "madam", "tenet")

PHRASES = (
    "random access memory",
    "as soon as possible",
    "frequently asked questions",
    "light emitting diode",
    "central processing unit",
    "portable document format",
    "personal identification number",
    "global positioning system",
    "gross domestic product",
    "automated teller machine",
)

SENTENCES = (
    "the river was wide and slow",
    "nobody saw the green car",
    "we planted seven apple trees",
    "her brother plays the drums",
    "the last train has gone",
    "every child likes a story",
    "his boots were full of sand",
    "the moon rose over the hill",
    "please close the garden gate",
    "all the shops are shut today",
)

PAIRS = (
    ("listen", "silent"),
    ("earth", "heart"),
    ("castle", "cattle"),
    ("below", "elbow"),
    ("winter", "writer"),
    ("secure", "rescue"),
    ("planet", "plenty"),
    ("garden", "danger"),
    ("spirit", "stripe"),
    ("study", "dusty"),
)
"""Word pairs that look like anagrams; some are."""

GROUPS = (
    ("fruits", words("apricot banana cherry fig grape lemon mango orange peach plum")),
    ("animals", words("badger camel donkey eagle ferret goat heron lizard moose otter")),
    ("tools", words("axe chisel drill file hammer level pliers saw spanner wrench")),
    ("cities", words("Athens Bergen Cairo Delhi Lima Madrid Nairobi Osaka Quito Rome")),
    ("trees", words("ash birch cedar elm hazel larch maple oak poplar willow")),
)

SCALES = (
    (
        "planets by distance from the Sun, nearest first",
        words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune"),
    ),
    (
        "animals by adult weight, lightest first",
        ("mouse", "rat", "hedgehog", "beaver", "lion", "horse", "elephant", "blue whale"),
    ),
    (
        "inventions by date, oldest first",
        ("wheel", "paper", "printing press", "telescope", "telephone", "aeroplane", "transistor"),
    ),
    (
        "mountains by height, highest first",
        ("Everest", "Aconcagua", "Denali", "Kilimanjaro", "Mont Blanc", "Mount Fuji", "Ben Nevis"),
    ),
    (
        "countries by area, largest first",
        ("Russia", "Canada", "Australia", "India", "Mexico", "France", "Japan", "Portugal"),
    ),
    (
        "metals by density, densest first",
        ("gold", "lead", "silver", "copper", "iron", "titanium", "aluminium"),
    ),
    (
        "rivers by length, longest first",
        ("Nile", "Yangtze", "Congo", "Danube", "Rhine", "Seine", "Thames"),
    ),
    (
        "composers by date of birth, earliest first",
        ("Bach", "Mozart", "Beethoven", "Chopin", "Brahms", "Debussy", "Stravinsky"),
    ),
    (
        "units of length, shortest first",
        ("millimetre", "centimetre", "inch", "foot", "metre", "kilometre", "mile"),
    ),
)
"""What is ranked, and the things in their true order."""

EVENTS: tuple[tuple[str, Date], ...] = (
    ("The first Moon landing", (1969, 7, 20)),
    ("The fall of the Berlin Wall", (1989, 11, 9)),
    ("The Wright brothers' first flight", (1903, 12, 17)),
    ("The sinking of the Titanic", (1912, 4, 15)),
    ("The storming of the Bastille", (1789, 7, 14)),
    ("The first ascent of Everest", (1953, 5, 29)),
    ("The launch of Sputnik 1", (1957, 10, 4)),
    ("Yuri Gagarin's flight into space", (1961, 4, 12)),
    ("The battle of Waterloo", (1815, 6, 18)),
    ("The armistice that ended the First World War", (1918, 11, 11)),
)

LIVES: tuple[tuple[str, Date, Date], ...] = (
    ("Ada Lovelace", (1815, 12, 10), (1852, 11, 27)),
    ("Mozart", (1756, 1, 27), (1791, 12, 5)),
    ("Marie Curie", (1867, 11, 7), (1934, 7, 4)),
    ("Albert Einstein", (1879, 3, 14), (1955, 4, 18)),
    ("Jane Austen", (1775, 12, 16), (1817, 7, 18)),
    ("Charles Darwin", (1809, 2, 12), (1882, 4, 19)),
    ("Frida Kahlo", (1907, 7, 6), (1954, 7, 13)),
    ("Alan Turing", (1912, 6, 23), (1954, 6, 7)),
    ("Mahatma Gandhi", (1869, 10, 2), (1948, 1, 30)),
    ("Rosa Parks", (1913, 2, 4), (2005, 10, 24)),
)
"""Name, date of birth, date of death."""

TAPS = ((3, 6, 2), (4, 12, 3), (6, 12, 4), (10, 15, 6), (20, 30, 12), (12, 24, 8), (5, 20, 4))
"""Hours that one tap needs, another needs, and both need together."""

RATIOS = ((1, 2), (2, 3), (3, 4), (3, 5), (1, 4), (2, 5), (1, 3))

FRACTIONS = words("1/2 2/3 3/4 3/5 5/8 0.7 0.55 0.8 1/3 0.4 0.25 5/6 0.9 1/5")

ATTRIBUTES = (
    ("taller", "shorter", "tallest"),
    ("older", "younger", "oldest"),
    ("faster", "slower", "fastest"),
    ("heavier", "lighter", "heaviest"),
    ("richer", "poorer", "richest"),
    ("stronger", "weaker", "strongest"),
)
"""More, less, most."""

GRAMMAR_ASKS = (
    "Correct the grammar of this sentence.",
    "Fix the mistakes in this sentence.",
    "Rewrite this sentence correctly.",
)

CLASSIFICATION_ASKS = {
    1: ("Is this review positive or negative?", "Classify the sentiment of this review."),
    2: ("Name the topic: sport, politics, business, science or music.",),
    3: ("Is the tone positive, negative, neutral or mixed?",),
    4: ("Is this remark positive or negative, and why?",),
}

SUMMARY_ASKS = (
    "Summarise this in one sentence.",
    "Give the gist in one sentence.",
    "Shorten this to one sentence.",
)

PRINT_ASKS = ("What does this Python code print?", "Give the output of this Python code.")

VOCABULARY: Graded = {
    1: (
        ("What is the opposite of 'generous'?", "Stingy."),
        ("Give an antonym of 'ancient'.", "Modern."),
        ("Name a word that means the opposite of 'expand'.", "Shrink."),
        ("What is the opposite of 'shallow'?", "Deep."),
        ("Give an antonym of 'victory'.", "Defeat."),
        ("What word is the opposite of 'arrive'?", "Depart."),
        ("Give the opposite of 'noisy'.", "Quiet."),
        ("Find an antonym for 'borrow'.", "Lend."),
        ("What is the opposite of 'rough'?", "Smooth."),
        ("Give an antonym of 'polite'.", "Rude."),
        ("What is the opposite of 'frequently'?", "Rarely."),
        ("Name an antonym of 'guilty'.", "Innocent."),
        ("What is the opposite of 'temporary'?", "Permanent."),
        ("Give the opposite of 'careless'.", "Careful."),
        ("What is the opposite of 'accept'?", "Refuse."),
    ),
    2: (
        ("Suggest two synonyms for 'happy'.", "Cheerful and glad."),
        ("What is another word for 'brave'?", "Courageous."),
        ("Give two words close in meaning to 'begin'.", "Start and commence."),
        ("Name a more vivid word for 'very tired'.", "Exhausted."),
        ("Replace 'very big' with one word.", "Enormous."),
        ("Give a synonym of 'clever'.", "Intelligent."),
        ("Which single word means 'to look at quickly'?", "Glance."),
        ("What is a formal word for 'buy'?", "Purchase."),
        ("Give two synonyms for 'quick'.", "Fast and rapid."),
        ("What is another word for 'mistake'?", "Error."),
        ("Which word means both a writing tool and an enclosure for animals?", "Pen."),
        ("Give a stronger word for 'angry'.", "Furious."),
        ("Name a synonym of 'wealthy'.", "Rich."),
        ("What is a plainer word for 'utilise'?", "Use."),
        ("Give two synonyms for 'strange'.", "Odd and peculiar."),
    ),
    3: (
        (
            "Define 'reluctant' in one sentence.",
            "Someone who is reluctant is unwilling to do something and slow to agree to it.",
        ),
        (
            "What does 'to hibernate' mean?",
            "To spend the winter in a deep sleep, as hedgehogs and some bats do.",
        ),
        (
            "Explain the word 'nostalgia'.",
            "It is a wistful longing for a happier time in the past.",
        ),
        (
            "What does 'ambiguous' mean?",
            "Open to more than one reading, so that the meaning isn't certain.",
        ),
        ("Define 'drought'.", "A long period with too little rain."),
        (
            "What is an 'heirloom'?",
            "A valued object handed down in a family from one generation to the next.",
        ),
        ("What is meant by 'candid'?", "Honest and direct, even when the truth is uncomfortable."),
        ("Define 'to eavesdrop'.", "To listen secretly to a conversation between other people."),
        (
            "What is a 'bibliography'?",
            "A list of the books and articles used in writing something.",
        ),
        ("Explain what 'resilient' means.", "Able to recover quickly from difficulty or shock."),
        (
            "What does 'to procrastinate' mean?",
            "To keep putting off something that ought to be done.",
        ),
        ("Define 'frugal'.", "Careful with money and able to live on little."),
        ("What is an 'archipelago'?", "A group of islands."),
        ("Explain the word 'serendipity'.", "It means finding something good by happy accident."),
        (
            "What does 'mutual' mean?",
            "Shared by both sides, as when two people respect each other.",
        ),
    ),
    4: (
        (
            "What is the difference between 'affect' and 'effect'?",
            "'Affect' is usually a verb meaning to influence; 'effect' is usually a noun "
            "meaning a result.",
        ),
        (
            "How do 'imply' and 'infer' differ?",
            "A speaker implies something without saying it; a listener infers it from what "
            "was said.",
        ),
        (
            "Distinguish 'uninterested' from 'disinterested'.",
            "An uninterested person doesn't care; a disinterested one has nothing to gain "
            "and can judge fairly.",
        ),
        (
            "When should one write 'fewer' rather than 'less'?",
            "Use 'fewer' for things that can be counted and 'less' for an amount that can't.",
        ),
        (
            "How does 'principal' differ from 'principle'?",
            "'Principal' means chief, or the head of a school; a 'principle' is a rule or belief.",
        ),
        (
            "What is the difference between 'historic' and 'historical'?",
            "'Historic' means important in history; 'historical' means merely belonging to "
            "the past.",
        ),
        (
            "Tell 'compliment' and 'complement' apart.",
            "A compliment is praise; a complement completes something or goes well with it.",
        ),
        (
            "How does 'envy' differ from 'jealousy'?",
            "Envy wants what another has; jealousy fears losing what one has already.",
        ),
        (
            "Distinguish 'emigrate' from 'immigrate'.",
            "People emigrate from the country they leave and immigrate to the one they enter.",
        ),
        (
            "What separates 'a simile' from 'a metaphor'?",
            "A simile says one thing is like another; a metaphor says it is the other.",
        ),
        (
            "How do 'continual' and 'continuous' differ?",
            "'Continual' means often repeated with pauses; 'continuous' means without any break.",
        ),
        (
            "Explain the difference between 'empathy' and 'sympathy'.",
            "Empathy is sharing another's feeling; sympathy is being sorry for them.",
        ),
        (
            "What is the difference between 'lie' and 'lay'?",
            "You lie down yourself, but you lay something else down, so 'lay' needs an object.",
        ),
        (
            "Distinguish 'stationary' from 'stationery'.",
            "'Stationary' means not moving; 'stationery' is paper, envelopes and pens.",
        ),
        (
            "How does 'a proverb' differ from 'an idiom'?",
            "A proverb is a full sentence giving advice; an idiom is a phrase whose meaning "
            "isn't literal.",
        ),
    ),
}

ANALOGIES: Graded = {
    1: (
        ("Complete the analogy: hot is to cold as up is to ...", "Down."),
        ("Puppy is to dog as kitten is to what?", "Cat."),
        ("Finish this: bird is to fly as fish is to ...", "Swim."),
        ("Complete: glove is to hand as sock is to ...", "Foot."),
        ("Day is to sun as night is to what?", "Moon."),
        ("Complete the analogy: bee is to hive as bird is to ...", "Nest."),
        ("Finish this: eye is to see as ear is to ...", "Hear."),
        ("Complete: teacher is to school as doctor is to ...", "Hospital."),
        ("Grass is to green as snow is to what?", "White."),
        ("Complete the analogy: king is to queen as prince is to ...", "Princess."),
        ("Finish this: pen is to write as knife is to ...", "Cut."),
        ("Complete: cow is to calf as sheep is to ...", "Lamb."),
        ("Car is to road as train is to what?", "Rails."),
        ("Complete the analogy: breakfast is to morning as dinner is to ...", "Evening."),
    ),
    2: (
        ("Complete the analogy: author is to novel as composer is to ...", "Symphony."),
        ("Finish this: thermometer is to temperature as scale is to ...", "Weight."),
        ("Petal is to flower as page is to what?", "Book."),
        ("Complete: France is to Paris as Japan is to ...", "Tokyo."),
        ("Complete the analogy: captain is to ship as pilot is to ...", "Aeroplane."),
        ("Finish this: wolf is to pack as lion is to ...", "Pride."),
        ("Hammer is to nail as screwdriver is to what?", "Screw."),
        ("Complete: seed is to tree as egg is to ...", "Bird."),
        ("Complete the analogy: triangle is to three as hexagon is to ...", "Six."),
        ("Finish this: bread is to baker as meat is to ...", "Butcher."),
        ("Lens is to camera as pupil is to what?", "Eye."),
        ("Complete: minute is to hour as month is to ...", "Year."),
        ("Complete the analogy: chapter is to book as scene is to ...", "Play."),
        ("Finish this: anchor is to ship as brake is to ...", "Car."),
    ),
    3: (
        (
            "Complete and explain: astronomer is to stars as botanist is to ...",
            "Plants. Each is the thing that the scientist studies.",
        ),
        (
            "Complete and explain: drizzle is to downpour as breeze is to ...",
            "Gale. The second is a much stronger form of the first.",
        ),
        (
            "Complete and explain: fin is to fish as wing is to ...",
            "Bird. Each is the part that the animal moves with.",
        ),
        (
            "Complete and explain: ink is to pen as petrol is to ...",
            "Car. Each is used up as the thing works.",
        ),
        (
            "Complete and explain: cartographer is to map as architect is to ...",
            "Blueprint. Each is the drawing that the expert makes.",
        ),
        (
            "Complete and explain: hunger is to eating as tiredness is to ...",
            "Sleeping. The second takes the first away.",
        ),
        (
            "Complete and explain: odometer is to distance as barometer is to ...",
            "Pressure. Each instrument measures the second thing.",
        ),
        (
            "Complete and explain: caterpillar is to butterfly as tadpole is to ...",
            "Frog. The young animal turns into the adult.",
        ),
        (
            "Complete and explain: prologue is to epilogue as dawn is to ...",
            "Dusk. The first opens something and the second closes it.",
        ),
        (
            "Complete and explain: juror is to verdict as referee is to ...",
            "Ruling. Each is the decision that the person gives.",
        ),
        (
            "Complete and explain: violin is to bow as drum is to ...",
            "Stick. Each instrument is sounded with the second thing.",
        ),
        (
            "Complete and explain: smile is to joy as frown is to ...",
            "Displeasure. The face shows the feeling.",
        ),
        (
            "Complete and explain: oak is to acorn as apple tree is to ...",
            "Apple. Each is the fruit of the tree.",
        ),
        (
            "Complete and explain: square is to cube as circle is to ...",
            "Sphere. The second is the solid form of the first.",
        ),
    ),
    4: (
        (
            "Complete and explain: skeleton is to body as plot is to ...",
            "Story. Each is the hidden frame that holds the rest together.",
        ),
        (
            "Complete and explain: antidote is to poison as apology is to ...",
            "Offence. The first undoes harm done by the second.",
        ),
        (
            "Complete and explain: thrift is to miserliness as courage is to ...",
            "Recklessness. A virtue pushed too far becomes the fault.",
        ),
        (
            "Complete and explain: fossil is to organism as ruin is to ...",
            "Building. The first is what time has left of the second.",
        ),
        (
            "Complete and explain: rehearsal is to performance as draft is to ...",
            "Final text. The first is a trial of the second.",
        ),
        (
            "Complete and explain: lullaby is to sleep as march is to ...",
            "Walking. The music is made to bring about or to go with the second.",
        ),
        (
            "Complete and explain: map is to territory as menu is to ...",
            "Meal. The first describes the second but can't replace it.",
        ),
        (
            "Complete and explain: seawater is to desalination as ore is to ...",
            "Smelting. The process draws the useful part from the raw source.",
        ),
        (
            "Complete and explain: scaffold is to building as training wheels are to ...",
            "Riding. The support is taken away once it isn't needed.",
        ),
        (
            "Complete and explain: eulogy is to praise as elegy is to ...",
            "Mourning. Each form of words expresses the second thing.",
        ),
        (
            "Complete and explain: keystone is to arch as premise is to ...",
            "Argument. Remove the first and the second falls.",
        ),
        (
            "Complete and explain: ripple is to wave as rumour is to ...",
            "Scandal. The first is the small beginning of the second.",
        ),
        (
            "Complete and explain: camouflage is to moth as alias is to ...",
            "Spy. Each hides its owner from those who are looking.",
        ),
        (
            "Complete and explain: erosion is to mountain as doubt is to ...",
            "Faith. The first slowly wears the second away.",
        ),
    ),
}

GRAMMAR: Graded = {
    1: (
        ("she dont like coffee.", "She doesn't like coffee."),
        ("Me and Tom is friends.", "Tom and I are friends."),
        ("i went to london on monday.", "I went to London on Monday."),
        ("He have two sister.", "He has two sisters."),
        ("There dog is very old.", "Their dog is very old."),
        ("We was late for the bus.", "We were late for the bus."),
        ("Its raining again.", "It's raining again."),
        ("I seen that film twice.", "I have seen that film twice."),
        ("The childs are playing.", "The children are playing."),
        ("Your my best friend.", "You're my best friend."),
        ("She can sings well.", "She can sing well."),
        ("He goed home early.", "He went home early."),
        ("An cat sat on a old chair.", "A cat sat on an old chair."),
        ("Where is you going?", "Where are you going?"),
    ),
    2: (
        ("The list of names are on the desk.", "The list of names is on the desk."),
        ("Each of the boys have a bicycle.", "Each of the boys has a bicycle."),
        ("I could of won the race.", "I could have won the race."),
        ("She is more taller than her brother.", "She is taller than her brother."),
        ("If I was you, I would wait.", "If I were you, I would wait."),
        ("He did good in the exam.", "He did well in the exam."),
        ("There is many reasons to stay.", "There are many reasons to stay."),
        ("I have less coins than you.", "I have fewer coins than you."),
        ("Neither the cat nor the dogs was fed.", "Neither the cat nor the dogs were fed."),
        ("He speaks English very good.", "He speaks English very well."),
        ("Yesterday I have met an old friend.", "Yesterday I met an old friend."),
        ("The news are bad today.", "The news is bad today."),
        ("She asked me where was the station.", "She asked me where the station was."),
        ("I look forward to meet you.", "I look forward to meeting you."),
    ),
    3: (
        ("Between you and I, the plan is weak.", "Between you and me, the plan is weak."),
        ("Whom is calling at this hour?", "Who is calling at this hour?"),
        ("He is one of those men who never gives up.", "He is one of those men who never give up."),
        ("She likes swimming, to read and music.", "She likes swimming, reading and music."),
        ("I wish I would have known sooner.", "I wish I had known sooner."),
        ("The firm lost it's best designer.", "The firm lost its best designer."),
        ("Hardly I had sat down when the bell rang.", "Hardly had I sat down when the bell rang."),
        ("It was so a hot day that we stayed in.", "It was such a hot day that we stayed in."),
        ("He suggested to take the early train.", "He suggested taking the early train."),
        (
            "By the time we arrived, the film started.",
            "By the time we arrived, the film had started.",
        ),
        ("The reason is because he was ill.", "The reason is that he was ill."),
        ("I am used to get up early.", "I am used to getting up early."),
        ("She insisted that he pays at once.", "She insisted that he pay at once."),
        ("The data was lost, however we had a copy.", "The data was lost; however, we had a copy."),
    ),
    4: (
        (
            "Walking home, the rain began to fall.",
            "As we were walking home, the rain began to fall.",
        ),
        ("He only ate two biscuits, not three.", "He ate only two biscuits, not three."),
        (
            "Having finished the essay, the television was turned on.",
            "Having finished the essay, she turned on the television.",
        ),
        ("The man was bitten by a dog with a beard.", "The man with a beard was bitten by a dog."),
        ("Not only she sings but also dances.", "She not only sings but also dances."),
        (
            "Covered in mud, Mother washed the boots.",
            "Mother washed the boots, which were covered in mud.",
        ),
        (
            "He is as clever, if not cleverer than, his sister.",
            "He is as clever as his sister, if not cleverer.",
        ),
        ("I neither have the time nor the money.", "I have neither the time nor the money."),
        ("Being a cold night, we lit the fire.", "As it was a cold night, we lit the fire."),
        (
            "Had I knew the cost, I would have refuse.",
            "Had I known the cost, I would have refused.",
        ),
        ("We gave the prize to whomever came first.", "We gave the prize to whoever came first."),
        (
            "To save time, the letter was sent by email.",
            "To save time, we sent the letter by email.",
        ),
        (
            "The cost of living in Oslo is higher than Rome.",
            "The cost of living in Oslo is higher than in Rome.",
        ),
        (
            "It is essential that she is told the truth now.",
            "It is essential that she be told the truth now.",
        ),
    ),
}

REWRITING: Graded = {
    1: (
        ("Put this sentence into the past tense: She walks to work.", "She walked to work."),
        ("Make this sentence negative: They have a car.", "They don't have a car."),
        ("Turn this into a question: He lives in Cairo.", "Does he live in Cairo?"),
        ("Make this sentence plural: The leaf falls.", "The leaves fall."),
        ("Put this into the future: I call my mother.", "I will call my mother."),
        ("Put this sentence into the past tense: We eat at noon.", "We ate at noon."),
        ("Turn this into a question: The shop is open.", "Is the shop open?"),
        ("Make this negative: I know the answer.", "I don't know the answer."),
        ("Make this sentence plural: The knife is sharp.", "The knives are sharp."),
        ("Put this into the past tense: He teaches maths.", "He taught maths."),
        ("Put this into the future: They build a bridge.", "They will build a bridge."),
        ("Turn this into a command: You should close the door.", "Close the door."),
        ("Make this negative: Sam can swim.", "Sam can't swim."),
        ("Put this sentence into the past tense: The bell rings.", "The bell rang."),
    ),
    2: (
        (
            "Rewrite in the passive voice: The cat chased the mouse.",
            "The mouse was chased by the cat.",
        ),
        ("Rewrite in the active voice: The cake was baked by Ella.", "Ella baked the cake."),
        (
            "Rewrite in the passive voice: Workers built the dam in 1936.",
            "The dam was built by workers in 1936.",
        ),
        ("Rewrite in the active voice: The song is loved by everyone.", "Everyone loves the song."),
        (
            "Rewrite in the passive voice: A storm damaged the roof.",
            "The roof was damaged by a storm.",
        ),
        (
            "Rewrite in the active voice: The letter will be sent by the clerk.",
            "The clerk will send the letter.",
        ),
        (
            "Rewrite in the passive voice: The judge has read the report.",
            "The report has been read by the judge.",
        ),
        (
            "Rewrite in the active voice: The window had been broken by the boys.",
            "The boys had broken the window.",
        ),
        (
            "Rewrite in the passive voice: They are repairing the road.",
            "The road is being repaired.",
        ),
        ("Rewrite in the active voice: Mistakes were made by the team.", "The team made mistakes."),
        ("Rewrite in the passive voice: You must lock the gate.", "The gate must be locked."),
        (
            "Rewrite in the active voice: The fire was put out by the crew.",
            "The crew put out the fire.",
        ),
        (
            "Rewrite in the passive voice: Fleming discovered penicillin.",
            "Penicillin was discovered by Fleming.",
        ),
        (
            "Rewrite in the active voice: The bill is being paid by my aunt.",
            "My aunt is paying the bill.",
        ),
    ),
    3: (
        (
            "Make this more polite: Send me the file now.",
            "Could you please send me the file when you have a moment?",
        ),
        (
            "Make this more formal: Sorry I can't make it.",
            "I regret that I will be unable to attend.",
        ),
        ("Turn into reported speech: 'I am tired,' said Leo.", "Leo said that he was tired."),
        ("Make this more formal: We got your letter.", "We have received your letter."),
        (
            "Make this friendlier: Your request is denied.",
            "I'm sorry, but we can't say yes this time.",
        ),
        (
            "Turn into reported speech: 'Where do you live?' she asked me.",
            "She asked me where I lived.",
        ),
        (
            "Join these into one sentence: It rained. We played anyway.",
            "Although it rained, we played anyway.",
        ),
        ("Make this more polite: You are wrong.", "I see it differently, if I may say so."),
        ("Join these with 'who': I met a man. He keeps bees.", "I met a man who keeps bees."),
        (
            "Turn into reported speech: 'I will help you,' he told us.",
            "He told us that he would help us.",
        ),
        (
            "Make this more formal: The boss wants it fixed fast.",
            "The manager requests that it be repaired promptly.",
        ),
        ("Make this plainer: Kindly refrain from smoking.", "Please don't smoke."),
        (
            "Join these with 'so that': She saved money. She wanted to travel.",
            "She saved money so that she could travel.",
        ),
        ("Make this more polite: Be quiet.", "Would you mind speaking more softly?"),
    ),
    4: (
        (
            "Cut this to its core: Due to the fact that it was raining, the match did not "
            "take place.",
            "The match was off because of rain.",
        ),
        (
            "Say this without jargon: We will leverage synergies going forward.",
            "We will work together from now on.",
        ),
        (
            "Rewrite without a double negative: It is not impossible that he lied.",
            "He may have lied.",
        ),
        (
            "Begin this sentence with 'Never': I have never seen such courage.",
            "Never have I seen such courage.",
        ),
        (
            "Cut this to its core: In my own personal opinion, I think the plan is good.",
            "I think the plan is good.",
        ),
        ("Stress the subject with 'It was': Nina found the key.", "It was Nina who found the key."),
        (
            "Make this vivid: The old man walked down the road.",
            "The old man shuffled down the dusty road, leaning on his stick.",
        ),
        (
            "Rewrite as a condition: Practise, and you will improve.",
            "If you practise, you will improve.",
        ),
        (
            "Turn the verb into a noun: They decided quickly, which surprised us.",
            "Their quick decision surprised us.",
        ),
        (
            "Say this without the cliché: At the end of the day, price is what counts.",
            "Price matters most.",
        ),
        (
            "Rewrite so that the blame is clear: Errors occurred in the accounts.",
            "The treasurer made errors in the accounts.",
        ),
        (
            "Rewrite without gendered words: Every fireman must wear his helmet.",
            "All firefighters must wear their helmets.",
        ),
        ("Cut this to its core: He is a man who works with great speed.", "He works fast."),
        (
            "Begin with 'Only when': I understood when I saw the map.",
            "Only when I saw the map did I understand.",
        ),
    ),
}

CLASSIFICATION: Graded = {
    1: (
        ("Best pizza in town, and the staff were lovely.", "Positive"),
        ("The phone broke after two days. Awful.", "Negative"),
        ("I adored every page of this book.", "Positive"),
        ("Cold food, rude waiter, never again.", "Negative"),
        ("A comfortable bed and a wonderful view.", "Positive"),
        ("The film was dull and far too long.", "Negative"),
        ("Fast delivery and great value. I'm delighted.", "Positive"),
        ("These shoes hurt and fell apart in a week.", "Negative"),
        ("What a superb concert!", "Positive"),
        ("The room was filthy and smelt of smoke.", "Negative"),
        ("My daughter loves this puzzle.", "Positive"),
        ("The worst customer service I have met.", "Negative"),
        ("Crisp sound, and the battery lasts all day.", "Positive"),
        ("The app crashes each time I open it.", "Negative"),
    ),
    2: (
        ("The striker scored twice in the final minutes.", "Sport"),
        ("Parliament will vote on the new tax law today.", "Politics"),
        ("Shares fell after the bank missed its profit target.", "Business"),
        ("The telescope found water vapour on a distant planet.", "Science"),
        ("Her second album mixes jazz with folk songs.", "Music"),
        ("The goalkeeper saved a penalty and the team went through.", "Sport"),
        ("The minister resigned a week before the election.", "Politics"),
        ("The carmaker will cut a thousand jobs to save costs.", "Business"),
        ("Researchers grew the crystal in zero gravity.", "Science"),
        ("The orchestra closed with a Mahler symphony.", "Music"),
        ("The rower won her third gold medal.", "Sport"),
        ("The mayor lost the vote by nine seats.", "Politics"),
        ("The airline ordered forty jets after record sales.", "Business"),
        ("A fossil shows that the dinosaur had feathers.", "Science"),
    ),
    3: (
        ("The plot is thin, but the acting saves it.", "Mixed"),
        ("It does what the box says, no more and no less.", "Neutral"),
        ("Lovely garden; shame about the noise.", "Mixed"),
        ("The parcel came on Tuesday at ten.", "Neutral"),
        ("I expected little and was pleasantly surprised.", "Positive"),
        ("Not bad at all for the price.", "Positive"),
        ("It could have been good, had anyone read the script.", "Negative"),
        ("The lid is blue and screws on.", "Neutral"),
        ("The soup was divine. The bill was not.", "Mixed"),
        ("I can't say that I would go back.", "Negative"),
        ("Great camera, hopeless battery.", "Mixed"),
        ("The museum opens at nine and has two floors.", "Neutral"),
        ("I couldn't put it down.", "Positive"),
        ("There are better ways to spend an evening.", "Negative"),
    ),
    4: (
        (
            "Oh good, another update that hides the one button I use.",
            "Negative: the praise is sarcastic.",
        ),
        (
            "I only cried three times, so it must be his funniest film yet.",
            "Positive: the reviewer was deeply moved.",
        ),
        ("If you enjoy waiting, this is the clinic for you.", "Negative: it mocks the long delay."),
        (
            "My one complaint is that the book had to end.",
            "Positive: the complaint is really praise.",
        ),
        ("The chef is brave to call this a salad.", "Negative: the dish is being mocked."),
        (
            "I bought one for myself, then four more for friends.",
            "Positive: buying again shows approval.",
        ),
        ("My dog likes it. I don't plan to share his taste.", "Negative: the writer dislikes it."),
        (
            "He played as if the piano owed him money.",
            "Negative: it suggests a harsh, angry style.",
        ),
        (
            "After ten years the kettle still hasn't given me an excuse to replace it.",
            "Positive: it has lasted very well.",
        ),
        (
            "Perfect, if you have always wanted a very expensive doorstop.",
            "Negative: it calls the thing useless.",
        ),
        (
            "I have read worse, though I would have to think where.",
            "Negative: the faint praise is an insult.",
        ),
        (
            "We came for one night and left after a week.",
            "Positive: they liked it enough to stay on.",
        ),
        (
            "The silence after the last note said everything.",
            "Positive: the audience was spellbound.",
        ),
        ("Well, the car park was nice.", "Negative: nothing else deserved praise."),
    ),
}

GEOGRAPHY: Graded = {
    1: (
        ("What is the capital of France?", "Paris."),
        ("Name the capital of Italy.", "Rome."),
        ("What is the capital city of Egypt?", "Cairo."),
        ("Which city is the capital of Spain?", "Madrid."),
        ("On which continent is Brazil?", "South America."),
        ("What is the largest ocean on Earth?", "The Pacific Ocean."),
        ("What is the capital of Greece?", "Athens."),
        ("On which continent is Kenya?", "Africa."),
        ("Which country has Ottawa as its capital?", "Canada."),
        ("What is the capital of Germany?", "Berlin."),
        ("Which is the largest continent?", "Asia."),
        ("What is the capital of Ireland?", "Dublin."),
        ("In which country is the Eiffel Tower?", "France."),
        ("Name the capital of Norway.", "Oslo."),
        ("What is the capital of China?", "Beijing."),
        ("Which continent surrounds the South Pole?", "Antarctica."),
    ),
    2: (
        ("What is the capital of Australia?", "Canberra, not Sydney."),
        ("What is the capital of Turkey?", "Ankara."),
        ("Which country has Reykjavik as its capital?", "Iceland."),
        ("Name the capital of Peru.", "Lima."),
        ("What is the capital of Vietnam?", "Hanoi."),
        ("Which river flows through Vienna and Budapest?", "The Danube."),
        ("What is the capital of New Zealand?", "Wellington."),
        ("Which two countries fill most of the Iberian Peninsula?", "Spain and Portugal."),
        ("What is the capital of Morocco?", "Rabat."),
        ("Which sea lies between Italy and Croatia?", "The Adriatic Sea."),
        ("Which country has Nairobi as its capital?", "Kenya."),
        ("On which river does London stand?", "The Thames."),
        ("Name the capital of Chile.", "Santiago."),
        ("Which mountain range divides France from Spain?", "The Pyrenees."),
        ("What is the capital of Finland?", "Helsinki."),
        ("In which country is Machu Picchu?", "Peru."),
    ),
    3: (
        (
            "What is the capital of Mongolia, and which two countries border it?",
            "Ulaanbaatar; Mongolia lies between Russia and China.",
        ),
        (
            "Which is the longest river in Europe, and where does it end?",
            "The Volga, which flows into the Caspian Sea.",
        ),
        (
            "Which African country was never colonised apart from a brief Italian occupation?",
            "Ethiopia.",
        ),
        (
            "What is the highest mountain in Africa, and in which country is it?",
            "Kilimanjaro, in Tanzania.",
        ),
        ("Which strait separates Asia from North America?", "The Bering Strait."),
        (
            "Name the three Baltic states and their capitals.",
            "Estonia (Tallinn), Latvia (Riga) and Lithuania (Vilnius).",
        ),
        (
            "Which lake is the deepest in the world?",
            "Lake Baikal in Siberia, about 1,640 metres deep.",
        ),
        ("Which country lies wholly inside South Africa?", "Lesotho."),
        ("What is the driest non-polar desert?", "The Atacama, mostly in northern Chile."),
        ("Name the capital of Kazakhstan.", "Astana."),
        ("Which canal joins the Mediterranean to the Red Sea?", "The Suez Canal."),
        ("Which South American capitals lie on the River Plate?", "Buenos Aires and Montevideo."),
        ("What is the world's largest island that isn't a continent?", "Greenland."),
        (
            "Which two countries have no coast and border only such countries?",
            "Liechtenstein and Uzbekistan.",
        ),
        ("What is the capital of Bhutan?", "Thimphu."),
        (
            "Through which countries does the equator pass in South America?",
            "Ecuador, Colombia and Brazil.",
        ),
    ),
    4: (
        (
            "Why is the Dead Sea so salty?",
            "Rivers bring in salts, but water leaves only by evaporation, so the salt stays "
            "behind.",
        ),
        (
            "Why do many hot deserts lie near 30 degrees of latitude?",
            "Air that rose at the equator sinks there, warm and dry, so little rain can form.",
        ),
        (
            "Why is western Europe milder than eastern Canada at the same latitude?",
            "West winds carry warmth to it from the Atlantic and its currents.",
        ),
        (
            "How does a fjord form?",
            "A glacier carves a deep valley, and the sea floods it when the ice has gone.",
        ),
        (
            "Why did many great cities grow beside rivers?",
            "Rivers gave water, food, transport and fertile soil.",
        ),
        (
            "Why is it warmer in January in Sydney than in London?",
            "The southern half of the Earth is then tilted towards the Sun, so it is summer there.",
        ),
        (
            "What is a rain shadow?",
            "The dry side of a mountain range: the air has dropped its rain on the side "
            "facing the wind.",
        ),
        (
            "Why does the Nile delta have such fertile soil?",
            "For thousands of years floods laid down rich silt there.",
        ),
        (
            "Why are there many volcanoes around the Pacific?",
            "Ocean plates sink beneath their neighbours there, and melted rock rises.",
        ),
        (
            "Why does China use one time zone although it spans five?",
            "The government chose Beijing time for the whole country, for unity.",
        ),
        (
            "How can an island such as Hawaii form far from any plate edge?",
            "A hot spot in the mantle melts rock, which builds a volcano from the sea floor.",
        ),
        (
            "Why do maps make Greenland look as big as Africa?",
            "The Mercator projection stretches land near the poles; Africa is really "
            "fourteen times larger.",
        ),
        (
            "Why is Singapore a busy port?",
            "It lies on the strait that joins the Indian Ocean and the South China Sea.",
        ),
        (
            "Why is it colder on a mountain, though nearer the Sun?",
            "The air is thinner and cools as it rises; the change in distance is trifling.",
        ),
        (
            "What makes a river meander?",
            "Water runs faster on the outside of a bend and cuts the bank, and drops silt "
            "on the inside.",
        ),
        (
            "Why do coastal towns have smaller swings in temperature?",
            "Water warms and cools slowly, so the sea evens out the seasons.",
        ),
    ),
}

SCIENCE: Graded = {
    1: (
        ("What gas do plants take in from the air?", "Carbon dioxide."),
        ("At what temperature does water boil at sea level?", "At 100 degrees Celsius."),
        ("How many legs does an insect have?", "Six."),
        ("What force pulls objects towards the Earth?", "Gravity."),
        ("Which planet is nearest the Sun?", "Mercury."),
        ("What do we call frozen water?", "Ice."),
        ("Which organ pumps blood round the body?", "The heart."),
        ("What is the chemical formula of water?", "H2O."),
        ("Which part of a plant takes in water from the soil?", "The roots."),
        ("What is the nearest star to the Earth?", "The Sun."),
        ("Which sense do we use our ears for?", "Hearing."),
        ("Which gas do we need to breathe to stay alive?", "Oxygen."),
        ("How many planets orbit the Sun?", "Eight."),
        ("Is a whale a fish or a mammal?", "A mammal."),
        ("What metal is attracted most strongly to a common magnet?", "Iron."),
    ),
    2: (
        (
            "What is photosynthesis?",
            "The way plants use light to make sugar from water and carbon dioxide.",
        ),
        (
            "Why do we see lightning before we hear thunder?",
            "Light travels much faster than sound.",
        ),
        ("What is the chemical symbol for gold?", "Au."),
        ("Which blood cells fight infection?", "White blood cells."),
        ("What is the smallest unit of a chemical element?", "An atom."),
        ("Why does ice float on water?", "It is less dense than liquid water."),
        ("What causes the tides?", "Mainly the Moon's gravity, and to a lesser degree the Sun's."),
        ("Which vitamin does skin make in sunlight?", "Vitamin D."),
        ("What is the unit of electrical resistance?", "The ohm."),
        ("What do bees carry from flower to flower?", "Pollen."),
        ("Why does iron rust?", "It reacts with oxygen and water."),
        ("What type of animal is a newt?", "An amphibian."),
        ("What is the centre of an atom called?", "The nucleus."),
        ("Which gas makes up most of the air?", "Nitrogen, about 78 percent."),
        ("What instrument magnifies very small things?", "A microscope."),
    ),
    3: (
        (
            "Why is the sky blue?",
            "Air scatters short blue waves of sunlight more than long red ones, so blue "
            "reaches us from all sides.",
        ),
        (
            "Why do we have seasons?",
            "The Earth's axis is tilted, so each half leans towards the Sun for part of the year.",
        ),
        (
            "How does a vaccine protect us?",
            "It shows the immune system a harmless form of a germ, so that the body can act "
            "fast later.",
        ),
        (
            "Why does salt melt ice on roads?",
            "Salty water freezes at a lower temperature than pure water.",
        ),
        ("How do fish breathe under water?", "Their gills take dissolved oxygen out of the water."),
        (
            "Why does a straw look bent in a glass of water?",
            "Light changes direction as it passes from water into air.",
        ),
        ("Why does sweat cool us?", "It takes heat from the skin as it evaporates."),
        (
            "How does a fuse protect a circuit?",
            "Its thin wire melts and breaks the circuit when the current is too large.",
        ),
        (
            "Why do metals feel colder than wood?",
            "They carry heat away from the hand more quickly.",
        ),
        (
            "Why does the Moon show phases?",
            "We see different parts of its sunlit half as it goes round the Earth.",
        ),
        (
            "How does yeast make bread rise?",
            "It turns sugar into carbon dioxide, and the bubbles swell the dough.",
        ),
        (
            "Why do leaves turn yellow in autumn?",
            "The green chlorophyll breaks down and shows yellow pigments already there.",
        ),
        (
            "What makes a rainbow?",
            "Raindrops bend and reflect sunlight, and spread it into its colours.",
        ),
        (
            "How do bats find their way in the dark?",
            "They give short high calls and listen for the echoes.",
        ),
        (
            "Why can't sound cross empty space?",
            "Sound is a wave in matter, and there is no matter to carry it.",
        ),
    ),
    4: (
        (
            "Why can't anything with mass reach the speed of light?",
            "The energy needed grows without limit as that speed comes near.",
        ),
        (
            "How does natural selection work?",
            "Useful inherited traits leave more offspring, so they spread over generations.",
        ),
        (
            "Why is absolute zero the lowest temperature?",
            "There the particles have the least energy possible, so no more heat can be removed.",
        ),
        (
            "How do we know the universe is expanding?",
            "Light from far galaxies is shifted to the red, and more so the farther they are.",
        ),
        (
            "Why do antibiotics fail against viruses?",
            "They attack parts of bacteria, such as cell walls, which viruses don't have.",
        ),
        (
            "How does carbon dating tell age?",
            "Carbon-14 decays at a known rate after death, so the share left tells the time since.",
        ),
        (
            "Why does a spinning skater speed up when the arms come in?",
            "Angular momentum is kept: with mass nearer the axis, the spin must be faster.",
        ),
        (
            "What does it mean for a gene to be recessive?",
            "Its trait shows only when both copies of the gene carry it.",
        ),
        (
            "How does a transistor act as a switch?",
            "A small voltage at one terminal controls whether current flows between the other two.",
        ),
        (
            "Why does a catalyst speed up a reaction?",
            "It offers a path that needs less energy, and isn't used up.",
        ),
        (
            "How does a heat pump warm a house more than its power suggests?",
            "It moves heat in from outside and doesn't have to make all of it.",
        ),
        (
            "Why is entropy said to give time a direction?",
            "In an isolated system disorder doesn't fall, so later states have at least as "
            "much of it.",
        ),
        ("Why are noble gases so unreactive?", "Their outer electron shells are full."),
        (
            "How does enriched uranium differ from natural uranium?",
            "It holds a larger share of the isotope uranium-235.",
        ),
        (
            "Why must a control group be used in a drug trial?",
            "Without one we can't tell the drug's effect from recovery by chance.",
        ),
    ),
}

PROVERBS: Graded = {
    1: (
        (
            "What does 'Better late than never' mean?",
            "It is better to do a thing late than not to do it at all.",
        ),
        (
            "Explain the proverb 'Practice makes perfect.'",
            "You get better at something by doing it again and again.",
        ),
        ("What does 'Look before you leap' advise?", "Think about what may happen before you act."),
        ("What does 'to be over the moon' mean?", "To be extremely happy."),
        (
            "Explain 'The early bird catches the worm.'",
            "Those who start early have the best chance of success.",
        ),
        ("What does 'a piece of cake' mean?", "Something very easy."),
        (
            "What does 'Two heads are better than one' mean?",
            "Two people solve a problem more easily than one alone.",
        ),
        ("What does 'under the weather' mean?", "Feeling slightly ill."),
        (
            "What does 'to break the ice' mean?",
            "To say or do something that helps strangers feel at ease.",
        ),
        ("What does 'once in a blue moon' mean?", "Very rarely."),
    ),
    2: (
        (
            "Explain 'Don't count your chickens before they hatch.'",
            "Don't rely on something good until it has really happened.",
        ),
        (
            "What does 'A stitch in time saves nine' mean?",
            "A small repair now saves a large one later.",
        ),
        ("What does 'to spill the beans' mean?", "To give away a secret."),
        (
            "Explain 'Too many cooks spoil the broth.'",
            "When too many people work on one thing, they get in each other's way.",
        ),
        ("What does 'to cost an arm and a leg' mean?", "To be very expensive."),
        (
            "Explain 'Actions speak louder than words.'",
            "What people do shows more than what they say.",
        ),
        (
            "What does 'to let sleeping dogs lie' mean?",
            "To leave an old trouble alone, lest it start again.",
        ),
        ("What does 'to hit the nail on the head' mean?", "To say exactly what is right."),
        ("Explain 'Make hay while the sun shines.'", "Use a good chance while it lasts."),
        (
            "What does 'to bite off more than you can chew' mean?",
            "To take on more than you can manage.",
        ),
    ),
    3: (
        (
            "Explain 'People in glass houses shouldn't throw stones.'",
            "Don't blame others for faults that you have yourself.",
        ),
        (
            "What does 'to burn your bridges' mean?",
            "To act so that you can't go back to how things were.",
        ),
        (
            "Explain 'Still waters run deep.'",
            "A quiet person may have strong feelings or wide knowledge.",
        ),
        (
            "What does 'a wolf in sheep's clothing' mean?",
            "Someone dangerous who pretends to be harmless.",
        ),
        (
            "Explain 'The pot calling the kettle black.'",
            "Someone blames another for a fault that both share.",
        ),
        (
            "What does 'to be penny wise and pound foolish' mean?",
            "To save small sums and waste large ones.",
        ),
        (
            "Explain 'A rolling stone gathers no moss.'",
            "Someone always on the move gains few ties or belongings.",
        ),
        (
            "What does 'to move the goalposts' mean?",
            "To change the rules unfairly while others try to meet them.",
        ),
        (
            "Explain 'Necessity is the mother of invention.'",
            "Real need drives people to find new ways.",
        ),
        (
            "What does 'to carry coals to Newcastle' mean?",
            "To bring something where there is plenty of it already.",
        ),
    ),
    4: (
        (
            "Explain the phrase 'a Pyrrhic victory' and where it comes from.",
            "A win that costs as much as a defeat, after King Pyrrhus, who beat Rome but "
            "lost most of his army.",
        ),
        (
            "What does 'to cross the Rubicon' mean, and why?",
            "To take a step that can't be undone: Caesar began a civil war by crossing that "
            "river in 49 BC.",
        ),
        (
            "What is 'a Trojan horse'?",
            "Something harmful let in because it looks like a gift, as the wooden horse was "
            "at Troy.",
        ),
        (
            "What does 'Achilles' heel' refer to?",
            "A single weak point; in the myth, his heel was the only place where he could be hurt.",
        ),
        (
            "Explain 'to cut the Gordian knot'.",
            "To solve a hard problem by a bold stroke, as Alexander cut a knot that none "
            "could untie.",
        ),
        (
            "What is 'the sword of Damocles'?",
            "A danger always hanging over one, like the sword hung by a hair above Damocles "
            "at a feast.",
        ),
        (
            "What is meant by 'a Catch-22'?",
            "A trap made by rules that defeat each other, as in Joseph Heller's novel.",
        ),
        (
            "What does 'tilting at windmills' mean?",
            "Fighting imaginary enemies, as Don Quixote did when he took windmills for giants.",
        ),
        (
            "What is 'a Sisyphean task'?",
            "Endless, useless work, like the rock that Sisyphus rolled uphill for ever.",
        ),
        (
            "How do 'Many hands make light work' and 'Too many cooks spoil the broth' conflict?",
            "The first says that more helpers make work easier; the second, that they get "
            "in the way.",
        ),
    ),
}

HOW_TO: Graded = {
    1: (
        (
            "How do I boil an egg?",
            "Put it in boiling water, wait eight minutes, then cool it in cold water.",
        ),
        (
            "How do I make a cup of tea?",
            "Pour boiling water on a tea bag, wait four minutes, remove the bag and add "
            "milk if you like.",
        ),
        (
            "How do I make toast without a toaster?",
            "Brown the bread in a dry pan, about two minutes on each side.",
        ),
        (
            "How do I thread a needle?",
            "Cut the thread cleanly, wet the end, push it through the eye and pull.",
        ),
        (
            "How should I water a cactus?",
            "Soak the soil, let it dry out fully, then water it again.",
        ),
        (
            "How can I dry wet shoes?",
            "Take out the insoles, stuff the shoes with newspaper and change it every few hours.",
        ),
        (
            "How do I keep cut flowers fresh?",
            "Trim the stems, change the water every two days and keep them out of the sun.",
        ),
        (
            "How do I wash my hands well?",
            "Wet them, rub with soap for twenty seconds, rinse and dry.",
        ),
    ),
    2: (
        (
            "Give three steps for cooking rice in a pan.",
            "1. Rinse the rice. 2. Simmer it, covered, in twice its volume of water. 3. "
            "Rest it for ten minutes.",
        ),
        (
            "Give three steps for planting a tomato seedling.",
            "1. Dig a deep hole in a sunny spot. 2. Bury the stem up to the first leaves. "
            "3. Water it well.",
        ),
        (
            "Give three steps for removing a splinter.",
            "1. Wash the skin. 2. Pull the splinter out with clean tweezers. 3. Wash again "
            "and cover.",
        ),
        (
            "Give three steps for making pancakes.",
            "1. Whisk flour, eggs and milk. 2. Fry a ladleful in butter. 3. Flip it when "
            "the edges set.",
        ),
        (
            "Give three steps for descaling a kettle.",
            "1. Boil equal parts vinegar and water. 2. Leave for an hour. 3. Rinse it twice.",
        ),
        (
            "Give three steps for wrapping a box.",
            "1. Cut paper to fit. 2. Fold and tape the long edges. 3. Fold the ends into "
            "triangles and tape.",
        ),
        (
            "Give three steps for making lemonade.",
            "1. Dissolve sugar in warm water. 2. Add lemon juice. 3. Top up with cold water "
            "and ice.",
        ),
        (
            "Give three steps for starting a compost heap.",
            "1. Choose a shady spot. 2. Layer green waste with dry leaves. 3. Turn it every "
            "few weeks.",
        ),
    ),
    3: (
        (
            "How can I fall asleep more easily?",
            "Keep regular hours, avoid screens and caffeine late in the day, and make the "
            "room cool and dark.",
        ),
        (
            "How do I treat a small burn?",
            "Cool it under running water for twenty minutes, take off rings, and cover it "
            "with cling film.",
        ),
        (
            "How do I fix a puncture on a bicycle?",
            "Take out the tube, find the hole, roughen it, glue on a patch, then refit and pump.",
        ),
        (
            "How should I prepare for a job interview?",
            "Study the firm, plan answers with examples, prepare two questions and arrive early.",
        ),
        (
            "How do I rescue a soup that is too salty?",
            "Add water or unsalted stock, or more vegetables; a little lemon or cream "
            "softens the taste.",
        ),
        (
            "How do I choose a strong password?",
            "Use four or more random words, a different password for each site, and a "
            "manager to keep them.",
        ),
        (
            "How can I learn ten new words a day?",
            "Write each on a card with an example, test yourself, and review the hard ones "
            "the next day.",
        ),
        (
            "How do I unblock a sink without chemicals?",
            "Pour in baking soda and vinegar, wait, flush with hot water, then use a plunger.",
        ),
    ),
    4: (
        (
            "How do I read a scientific paper quickly?",
            "Read the abstract and conclusion, then the figures; read the methods only if "
            "the result matters to you.",
        ),
        (
            "How can I tell a friend that their business plan is weak?",
            "Ask what they want from you, name a strength, state the main risk plainly, and "
            "offer help.",
        ),
        (
            "How do I decide whether to repair or replace a washing machine?",
            "Repair it if it is young and the cost is under half that of a new one; "
            "otherwise replace it.",
        ),
        (
            "How can I estimate the height of a tree without climbing it?",
            "Compare shadows: its height is its shadow times your height, divided by your shadow.",
        ),
        (
            "How do I check whether a news story is true?",
            "Find the first source, see who else reports it, check the date, and search the image.",
        ),
        (
            "How can a team hold shorter meetings?",
            "Send the agenda first, invite few, set an end time, and write down who does what.",
        ),
        (
            "How do I start saving when I earn little?",
            "List what you spend, cut one regular cost, and move a fixed sum on payday.",
        ),
        (
            "How do I split a restaurant bill fairly when some drank and some did not?",
            "Share the food equally, and divide the drinks among those who had them.",
        ),
    ),
}

POEMS: Graded = {
    1: (
        (
            "Write a rhyming couplet about rain.",
            "The rain came tapping on the pane,\nthen packed its drums and left again.",
        ),
        (
            "Write a rhyming couplet about a cat.",
            "The cat has claimed the warmest chair\nand dares us all to sit down there.",
        ),
        (
            "Write a rhyming couplet about winter.",
            "The pond is glass, the hedge is white,\nthe stars are sharp as pins tonight.",
        ),
        (
            "Write a rhyming couplet about bread.",
            "The oven hums, the kitchen glows,\nand through the house the good smell goes.",
        ),
        (
            "Write a rhyming couplet about the sea.",
            "The sea writes letters on the sand\nand takes them back with its own hand.",
        ),
        (
            "Write a rhyming couplet about homework.",
            "I meant to start at half past three;\nit's nine, and still it stares at me.",
        ),
    ),
    2: (
        (
            "Write a haiku about autumn.",
            "One red leaf lets go,\nturns twice in the morning air,\nand lands without sound.",
        ),
        (
            "Write a haiku about a train journey.",
            "Fields run past the glass;\na stranger sleeps beside me\nall the way to town.",
        ),
        (
            "Write a haiku about coffee.",
            "Steam lifts from the cup;\nthe day waits outside the door\nuntil the last sip.",
        ),
        (
            "Write a haiku about an old clock.",
            "The old clock has stopped,\nyet twice in every long day\nit tells us the truth.",
        ),
        (
            "Write a haiku about snow.",
            "Snow fell in the night.\nThe path I walk each morning\nhas forgotten me.",
        ),
        (
            "Write a haiku about a library.",
            "So many voices\nfolded shut upon the shelves,\nwaiting for a hand.",
        ),
    ),
    3: (
        (
            "Write a four-line poem about a lighthouse.",
            "It has no place it needs to go,\n"
            "no cargo and no crew,\n"
            "yet every ship that passes by\n"
            "is guided safely through.",
        ),
        (
            "Write a four-line poem about growing old.",
            "My knees complain about the stairs,\n"
            "my hair has turned to snow,\n"
            "but I can name the trees out there;\n"
            "I watched the whole wood grow.",
        ),
        (
            "Write a four-line poem about a lost key.",
            "I searched the drawer, I searched the floor,\n"
            "I blamed the dog, the cat;\n"
            "I found it hanging in the door,\n"
            "and that, I fear, was that.",
        ),
        (
            "Write a four-line poem about the moon.",
            "The moon has borrowed all its light\n"
            "and pays it back with care;\n"
            "it spends a little every night\n"
            "on roofs and empty air.",
        ),
        (
            "Write a four-line poem about a spider.",
            "She hangs her washing on the dew,\n"
            "a line from thorn to thorn,\n"
            "and mends by dusk what wind undid\n"
            "between the noon and morn.",
        ),
        (
            "Write a four-line poem about moving house.",
            "The rooms are bare, the boxes full,\n"
            "the van is at the gate;\n"
            "the pencil marks that show our heights\n"
            "are left behind to wait.",
        ),
    ),
    4: (
        (
            "Write a limerick about a baker.",
            "A baker who lived by the quay\n"
            "put far too much yeast in at three;\n"
            "by five, I am told,\n"
            "the dough had grown bold\n"
            "and was halfway to France on the sea.",
        ),
        (
            "Write a limerick about a cautious cat.",
            "A cautious old tabby called Lou\n"
            "held meetings before she would mew;\n"
            "the minutes she kept\n"
            "were read while she slept,\n"
            "and approved by a quorum of two.",
        ),
        (
            "Write a limerick about a programmer.",
            "A coder who worked through the night\n"
            "fixed a bug that was hiding from sight;\n"
            "but the moment she slept\n"
            "two new ones had crept\n"
            "to the lines she was sure had been right.",
        ),
        (
            "Write a limerick about a forgetful chef.",
            "A chef with a poor memory\n"
            "put salt, and not sugar, in tea;\n"
            "the guests gave a cough,\n"
            "and quickly went off\n"
            "to a diner that brewed it for free.",
        ),
        (
            "Write a poem without rhyme about silence.",
            "Silence isn't empty.\n"
            "It is the bowl\n"
            "that every word is poured into,\n"
            "and it keeps its shape\n"
            "after we have gone.",
        ),
        (
            "Write a two-line poem in which each line is a question.",
            "Who taught the river where to bend?\nWho will it ask when it comes to the end?",
        ),
    ),
}

TRANSLATION: dict[int, tuple[tuple[str, str, str], ...]] = {
    1: (
        ("Good morning.", "Bonjour.", "Buenos días."),
        ("Thank you very much.", "Merci beaucoup.", "Muchas gracias."),
        ("See you tomorrow.", "À demain.", "Hasta mañana."),
        ("Happy birthday!", "Joyeux anniversaire !", "¡Feliz cumpleaños!"),
        ("Good night.", "Bonne nuit.", "Buenas noches."),
        ("Yes, please.", "Oui, s'il vous plaît.", "Sí, por favor."),
        ("The red house.", "La maison rouge.", "La casa roja."),
        ("My brother.", "Mon frère.", "Mi hermano."),
    ),
    2: (
        ("How are you?", "Comment allez-vous ?", "¿Cómo está usted?"),
        ("Where is the station?", "Où est la gare ?", "¿Dónde está la estación?"),
        ("I am hungry.", "J'ai faim.", "Tengo hambre."),
        ("How much does it cost?", "Combien ça coûte ?", "¿Cuánto cuesta?"),
        ("She has two cats.", "Elle a deux chats.", "Ella tiene dos gatos."),
        ("What time is it?", "Quelle heure est-il ?", "¿Qué hora es?"),
        ("It is very cold today.", "Il fait très froid aujourd'hui.", "Hoy hace mucho frío."),
        ("I don't understand.", "Je ne comprends pas.", "No entiendo."),
    ),
    3: (
        (
            "We ate at a small restaurant.",
            "Nous avons mangé dans un petit restaurant.",
            "Comimos en un restaurante pequeño.",
        ),
        (
            "I have lived here for three years.",
            "J'habite ici depuis trois ans.",
            "Vivo aquí desde hace tres años.",
        ),
        (
            "Can you help me find my keys?",
            "Pouvez-vous m'aider à trouver mes clés ?",
            "¿Puede ayudarme a encontrar mis llaves?",
        ),
        (
            "My sister is taller than I am.",
            "Ma sœur est plus grande que moi.",
            "Mi hermana es más alta que yo.",
        ),
        (
            "The train will arrive at noon.",
            "Le train arrivera à midi.",
            "El tren llegará a mediodía.",
        ),
        ("They went out without us.", "Ils sont sortis sans nous.", "Salieron sin nosotros."),
        (
            "I would like a glass of water.",
            "Je voudrais un verre d'eau.",
            "Quisiera un vaso de agua.",
        ),
        (
            "The book that I bought is blue.",
            "Le livre que j'ai acheté est bleu.",
            "El libro que compré es azul.",
        ),
    ),
    4: (
        (
            "I want you to tell me the truth.",
            "Je veux que tu me dises la vérité.",
            "Quiero que me digas la verdad.",
        ),
        (
            "If I had time, I would learn to paint.",
            "Si j'avais le temps, j'apprendrais à peindre.",
            "Si tuviera tiempo, aprendería a pintar.",
        ),
        (
            "When I was a child, I used to walk to school.",
            "Quand j'étais enfant, j'allais à l'école à pied.",
            "Cuando era niño, iba a la escuela a pie.",
        ),
        ("It's raining cats and dogs.", "Il pleut des cordes.", "Llueve a cántaros."),
        ("I doubt that he will come.", "Je doute qu'il vienne.", "Dudo que venga."),
        (
            "If you had called, I would have come.",
            "Si tu avais appelé, je serais venu.",
            "Si hubieras llamado, habría venido.",
        ),
        (
            "It cost me an arm and a leg.",
            "Ça m'a coûté les yeux de la tête.",
            "Me costó un ojo de la cara.",
        ),
        (
            "The sooner you start, the sooner you finish.",
            "Plus tôt tu commences, plus tôt tu finis.",
            "Cuanto antes empieces, antes acabas.",
        ),
    ),
}

SUMMARY: Graded = {
    1: (
        (
            "The school library is shut this week. A pipe burst on Sunday and wet the "
            "floor. It opens again on Monday.",
            "A burst pipe has closed the school library until Monday.",
        ),
        (
            "Our dog Rufus hates baths. He hides under the bed when he hears the tap. "
            "Yesterday it took three of us to wash him.",
            "Rufus the dog hates baths and has to be washed by force.",
        ),
        (
            "The bakery on Mill Street sells out by ten. People queue from six. The owner "
            "bakes alone and won't make more.",
            "Demand at the Mill Street bakery far exceeds what its owner will bake.",
        ),
        (
            "Maya planted sunflowers in April. By August they stood taller than she did. "
            "She won first prize at the fair.",
            "Maya's tall sunflowers won first prize at the fair.",
        ),
        (
            "The bridge will close on Friday night for painting. Drivers should use the "
            "tunnel. Work ends on Sunday.",
            "The bridge closes for painting from Friday night to Sunday; use the tunnel.",
        ),
        (
            "The new bus runs every ten minutes. It costs less than the tram and stops at "
            "the hospital.",
            "The new bus is frequent, cheaper than the tram and serves the hospital.",
        ),
        (
            "We lost the first match by three goals. The coach changed the defence. We have "
            "won every game since.",
            "A change in defence turned an early loss into a winning run.",
        ),
    ),
    2: (
        (
            "Bees dance to share news. The angle of the dance shows direction, and its "
            "length shows distance. Other bees then fly straight to the flowers.",
            "Bees use a dance to tell others where flowers are.",
        ),
        (
            "Coffee was once banned in some cities. Rulers feared the talk in coffee houses "
            "more than the drink. The bans rarely lasted.",
            "Rulers sometimes banned coffee for fear of coffee-house talk, but not for long.",
        ),
        (
            "Tea cools faster in a wide cup. More of its surface meets the air, so heat "
            "escapes sooner. A lid slows this down.",
            "Tea cools fastest in a wide, open cup because more of it meets the air.",
        ),
        (
            "The town hired goats to clear a steep hill. They ate the weeds in a month. "
            "Machines would have cost twice as much.",
            "Goats cleared the town's hill of weeds at half the cost of machines.",
        ),
        (
            "Old maps showed an island off Africa that no one could find. Sailors copied it "
            "for two centuries. It had been a cloud bank.",
            "For two centuries maps showed an island that was only a cloud bank.",
        ),
        (
            "Many birds sing at dawn. The air is still then, so sound travels far, and it "
            "is too dark to feed.",
            "Birds sing at dawn because sound carries well and they can't feed yet.",
        ),
        (
            "The firm let staff choose their hours. Sick days fell by a third. Output "
            "stayed the same.",
            "Free choice of hours cut sick days without cutting output.",
        ),
    ),
    3: (
        (
            "Wooden ships needed copper plates to keep out worms. The plates also stopped "
            "weed, so ships sailed faster. Navies paid gladly.",
            "Copper plates protected wooden ships from worms and made them faster, so navies paid.",
        ),
        (
            "Glass is made by melting sand with soda and lime. Soda lowers the melting "
            "point; lime keeps the glass from dissolving.",
            "Glass is sand melted with soda, which eases melting, and lime, which makes it last.",
        ),
        (
            "Cities are warmer than the land around them. Dark roofs soak up sunlight, and "
            "few trees give shade. Pale paint and parks help.",
            "Dark roofs and a lack of trees make cities hot; pale paint and parks help.",
        ),
        (
            "Tests showed that the pill worked no better than sugar. Patients liked it all "
            "the same. The maker withdrew it.",
            "The maker withdrew a popular pill because it worked no better than sugar.",
        ),
        (
            "The river was straightened to move ships. Floods grew worse downstream. Now "
            "engineers are putting the bends back.",
            "Straightening the river helped ships but worsened floods, so its bends are "
            "being restored.",
        ),
        (
            "Early cameras needed long exposures. Sitters had to keep still for minutes, "
            "and a smile is hard to hold. So old portraits look grave.",
            "Old portraits look grave because sitters couldn't hold a smile through long "
            "exposures.",
        ),
        (
            "Most apples grown from seed taste sour. Growers therefore graft twigs of a "
            "good tree onto young roots. Each variety is one tree, copied.",
            "Since seedlings taste sour, growers copy good apple trees by grafting.",
        ),
    ),
    4: (
        (
            "A tax on windows was meant to fall on the rich. Owners bricked windows up "
            "instead. The poor, in crowded rooms, lost light and air.",
            "A window tax aimed at the rich ended by taking light and air from the poor.",
        ),
        (
            "Wolves came back to the park. Deer left the river banks, willows grew, and "
            "beavers had wood for dams. Some experts doubt that wolves did it all.",
            "The wolves' return may have led, through fewer deer, to willows and beavers, "
            "though some doubt it.",
        ),
        (
            "Safer cars can tempt drivers into risk. Some studies find that part of the "
            "gain is lost this way. Few find that all of it is.",
            "Riskier driving seems to undo some, but not all, of the gain from safer cars.",
        ),
        (
            "The museum returned the mask. Its lawyers had said that the purchase was "
            "legal. The director answered that legal wasn't the same as right.",
            "The museum gave back a mask it legally owned because its director thought "
            "keeping it wrong.",
        ),
        (
            "Adding a road can slow traffic. Each driver picks the quickest route, and all "
            "of them crowd onto it. Closing it can help everyone.",
            "A new road may slow everyone down as drivers crowd onto it, so closing it can help.",
        ),
        (
            "She kept every letter he sent and answered none. After his death they were "
            "printed. Readers call it a love story; she calls it theft.",
            "Readers see love in his printed letters, but the woman who never answered them "
            "feels robbed.",
        ),
        (
            "The vote was a tie. The chair, who had promised to stay neutral, could break "
            "it. She resigned and left the tie standing.",
            "The chair resigned rather than break either a tied vote or her promise of neutrality.",
        ),
    ),
}

RIDDLES: Graded = {
    1: (
        (
            "All roses are plants. This flower is a rose. Is it a plant?",
            "Yes, since all roses are plants.",
        ),
        (
            "No reptile has fur. A snake is a reptile. Does it have fur?",
            "No, since no reptile has fur.",
        ),
        ("Which is the odd one out: apple, pear, carrot, plum?", "Carrot; the others are fruit."),
        ("Ben has more books than Ana, and Ana has none. Does Ben have any?", "Yes, at least one."),
    ),
    2: (
        (
            "Some cats are black. Does it follow that some cats aren't black?",
            "No. It may be that all of them are black.",
        ),
        (
            "If it rains, the street gets wet. The street is wet. Must it have rained?",
            "No. Something else may have wet it.",
        ),
        (
            "If it rains, the street gets wet. The street is dry. Has it rained?",
            "No. Rain would have made it wet.",
        ),
        ("Which is the odd one out: 9, 16, 24, 36?", "24; the others are square numbers."),
    ),
    3: (
        (
            "A bat and a ball cost 110 cents, and the bat costs 100 cents more than the "
            "ball. What does the ball cost?",
            "5 cents: the bat then costs 105, and together they cost 110.",
        ),
        (
            "Five machines make five toys in five minutes. How long do 100 machines take to "
            "make 100 toys?",
            "Five minutes, as each machine makes one toy in that time.",
        ),
        (
            "Lilies on a pond double each day and cover it on day 30. On which day was it "
            "half covered?",
            "On day 29, one doubling earlier.",
        ),
        (
            "A drawer holds ten black and ten white socks. How many must you take in the "
            "dark to be sure of a pair?",
            "Three: two may differ, but the third must match one of them.",
        ),
    ),
    4: (
        (
            "Ann says 'Bob lies.' Bob says 'We both tell the truth.' Each always lies or "
            "always tells the truth. Who lies?",
            "Bob. If he were truthful, Ann would be too, yet she calls him a liar; so Bob "
            "lies and Ann is truthful.",
        ),
        (
            "Boxes labelled Apples, Pears and Mixed are all labelled wrongly. How do you "
            "fix them with one fruit?",
            "Take it from Mixed: that box holds only that fruit. The box with the other "
            "fruit's label is mixed, and the third box holds the other fruit.",
        ),
        (
            "You have nine coins, one of them heavier. How do you find it in two weighings?",
            "Weigh three against three: the heavy side, or else the rest, has it. Then "
            "weigh one of those three against another.",
        ),
        (
            "A person says 'I am lying now.' Is that true or false?",
            "Neither: if it is true it is false, and if it is false it is true. It is a paradox.",
        ),
    ),
}

FUNCTIONS: Graded = {
    1: (
        (
            "Write a Python function that returns the larger of two numbers.",
            "def larger(a, b):\n    return a if a > b else b",
        ),
        (
            "Write a Python function that tells whether a number is even.",
            "def is_even(n):\n    return n % 2 == 0",
        ),
        (
            "Write a Python function that reverses a string.",
            "def reverse(text):\n    return text[::-1]",
        ),
        (
            "Write a Python function that squares each number in a list.",
            "def squares(numbers):\n    return [n * n for n in numbers]",
        ),
        (
            "Write a Python function that counts the words in a text.",
            "def count_words(text):\n    return len(text.split())",
        ),
        (
            "Write a Python function that returns the last item of a list.",
            "def last(items):\n    return items[-1]",
        ),
        (
            "Write a Python function that converts Celsius to Fahrenheit.",
            "def to_fahrenheit(c):\n    return c * 9 / 5 + 32",
        ),
        (
            "Write a Python function that joins names with commas.",
            'def join_names(names):\n    return ", ".join(names)',
        ),
    ),
    2: (
        (
            "Write a Python function that counts the vowels in a string.",
            'def vowels(text):\n    return sum(c in "aeiou" for c in text.lower())',
        ),
        (
            "Write a Python function that computes a factorial.",
            "def factorial(n):\n"
            "    result = 1\n"
            "    for k in range(2, n + 1):\n"
            "        result *= k\n"
            "    return result",
        ),
        (
            "Write a Python function that tells whether a word is a palindrome.",
            "def is_palindrome(word):\n    return word == word[::-1]",
        ),
        (
            "Write a Python function that gives the mean of a list, or None if it is empty.",
            "def mean(values):\n    return sum(values) / len(values) if values else None",
        ),
        (
            "Write a Python function that removes duplicates and keeps the order.",
            "def unique(items):\n    return list(dict.fromkeys(items))",
        ),
        (
            "Write a Python function that adds up the digits of a number.",
            "def digit_sum(n):\n    return sum(int(d) for d in str(n))",
        ),
        (
            "Write a Python function that swaps the keys and values of a dict.",
            "def swap(d):\n    return {v: k for k, v in d.items()}",
        ),
        (
            "Write a Python function that finds the longest word in a list.",
            "def longest(words):\n    return max(words, key=len)",
        ),
    ),
    3: (
        (
            "Write a Python function that returns the first n Fibonacci numbers.",
            "def fibonacci(n):\n"
            "    out, a, b = [], 0, 1\n"
            "    for _ in range(n):\n"
            "        out.append(a)\n"
            "        a, b = b, a + b\n"
            "    return out",
        ),
        (
            "Write a Python function that tells whether n is prime.",
            "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))",
        ),
        (
            "Write a Python function for the greatest common divisor of two numbers.",
            "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        ),
        (
            "Write a Python function that flattens a list of lists by one level.",
            "def flatten(rows):\n    return [x for row in rows for x in row]",
        ),
        (
            "Write a Python function that splits a list into chunks of size n.",
            "def chunks(items, n):\n    return [items[i : i + n] for i in range(0, len(items), n)]",
        ),
        (
            "Write a Python function that transposes a matrix.",
            "def transpose(m):\n    return [list(column) for column in zip(*m)]",
        ),
        (
            "Write a Python function that tells whether two words are anagrams.",
            "def anagrams(a, b):\n    return sorted(a) == sorted(b)",
        ),
        (
            "Write a Python function that counts how often each item occurs.",
            "def counts(items):\n"
            "    out = {}\n"
            "    for x in items:\n"
            "        out[x] = out.get(x, 0) + 1\n"
            "    return out",
        ),
    ),
    4: (
        (
            "Write a Python binary search that returns an index or -1.",
            "def search(a, x):\n"
            "    lo, hi = 0, len(a)\n"
            "    while lo < hi:\n"
            "        mid = (lo + hi) // 2\n"
            "        if a[mid] < x:\n"
            "            lo = mid + 1\n"
            "        else:\n"
            "            hi = mid\n"
            "    return lo if lo < len(a) and a[lo] == x else -1",
        ),
        (
            "Write a Python function that flattens lists nested to any depth.",
            "def flatten(x):\n"
            "    if not isinstance(x, list):\n"
            "        return [x]\n"
            "    return [z for y in x for z in flatten(y)]",
        ),
        (
            "Write a Python function that yields all subsets of a list.",
            "def subsets(items):\n"
            "    if not items:\n"
            "        return [[]]\n"
            "    rest = subsets(items[1:])\n"
            "    return rest + [[items[0], *r] for r in rest]",
        ),
        (
            "Write a Python quicksort that returns a new list.",
            "def quicksort(a):\n"
            "    if len(a) < 2:\n"
            "        return a[:]\n"
            "    p, *rest = a\n"
            "    low = [x for x in rest if x < p]\n"
            "    high = [x for x in rest if x >= p]\n"
            "    return quicksort(low) + [p] + quicksort(high)",
        ),
        (
            "Write a Python function that tells whether brackets ()[] are balanced.",
            "def balanced(text):\n"
            "    stack = []\n"
            "    for c in text:\n"
            '        if c in "([":\n'
            "            stack.append(c)\n"
            '        elif c in ")]":\n'
            '            if not stack or stack.pop() + c not in ("()", "[]"):\n'
            "                return False\n"
            "    return not stack",
        ),
        (
            "Write a Python decorator that caches a function of one argument.",
            "def cached(f):\n"
            "    seen = {}\n"
            "    def g(x):\n"
            "        if x not in seen:\n"
            "            seen[x] = f(x)\n"
            "        return seen[x]\n"
            "    return g",
        ),
        (
            "Write a Python function that gives the largest sum of a run of numbers.",
            "def best_run(a):\n"
            "    best = run = a[0]\n"
            "    for x in a[1:]:\n"
            "        run = max(x, run + x)\n"
            "        best = max(best, run)\n"
            "    return best",
        ),
        (
            "Write a Python function that merges two sorted lists.",
            "def merge(a, b):\n"
            "    out = []\n"
            "    a, b = list(a), list(b)\n"
            "    while a and b:\n"
            "        out.append(a.pop(0) if a[0] <= b[0] else b.pop(0))\n"
            "    return out + a + b",
        ),
    ),
}

PRINTS: Graded = {
    1: (
        ("print(3 + 4 * 2)", "11"),
        ('print("ab" * 3)', "ababab"),
        ("print(17 % 5)", "2"),
        ('print(len("banana"))', "6"),
        ('print("hello".upper())', "HELLO"),
        ("print(7 // 2, 7 / 2)", "3 3.5"),
        ("print([1, 2, 3][1])", "2"),
        ("print(2 ** 5)", "32"),
    ),
    2: (
        ('word = "planet"\nprint(word[1:4])', "lan"),
        ("total = 0\nfor n in range(1, 5):\n    total += n\nprint(total)", "10"),
        ("a, b = 3, 8\na, b = b, a\nprint(a - b)", "5"),
        ("print([n * n for n in range(4)])", "[0, 1, 4, 9]"),
        ('print("a-b-c".split("-"))', "['a', 'b', 'c']"),
        ('x = 12\nprint("big" if x > 10 else "small")', "big"),
        ('ages = {"Ann": 30}\nprint(ages.get("Bob", 0))', "0"),
        ('print(sorted("cab"))', "['a', 'b', 'c']"),
    ),
    3: (
        ("a = [1, 2]\nb = a\nb.append(3)\nprint(a)", "[1, 2, 3]"),
        ("print([x for x in range(10) if x % 3 == 0])", "[0, 3, 6, 9]"),
        ("def f(n):\n    return 1 if n == 0 else n * f(n - 1)\nprint(f(4))", "24"),
        ("print(sum(i * j for i in (1, 2) for j in (3, 4)))", "21"),
        ("s = {1, 2, 2, 3}\nprint(len(s), 2 in s)", "3 True"),
        ("n = 27\nsteps = 0\nwhile n > 1:\n    n //= 3\n    steps += 1\nprint(steps)", "3"),
        ('print(list(zip("ab", [1, 2, 3])))', "[('a', 1), ('b', 2)]"),
        ("print(bool([]), bool([0]))", "False True"),
    ),
    4: (
        (
            "def add(x, items=[]):\n    items.append(x)\n    return items\nadd(1)\nprint(add(2))",
            "[1, 2]",
        ),
        ("fs = [lambda: i for i in range(3)]\nprint([f() for f in fs])", "[2, 2, 2]"),
        ("rows = [[0] * 2] * 2\nrows[0][0] = 1\nprint(rows)", "[[1, 0], [1, 0]]"),
        ("print(0.1 + 0.2 == 0.3)", "False"),
        ("g = (n for n in range(3))\nprint(sum(g), sum(g))", "3 0"),
        (
            'def f():\n    try:\n        return 1\n    finally:\n        print("done")\nprint(f())',
            "done\n1",
        ),
        ("print(-7 // 2, -7 % 2)", "-4 1"),
        ("x = 1\ndef f():\n    x = 2\nf()\nprint(x)", "1"),
    ),
}

EXTRACTION: tuple[tuple[str, tuple[tuple[int, str, str], ...]], ...] = (
    (
        "The choir will meet in St Anne's Hall on Tuesday at 7 pm. Bring a pencil and 5 "
        "euros. Rosa Blum conducts.",
        (
            (1, "Where will the choir meet?", "In St Anne's Hall."),
            (2, "On which day and at what time is the meeting?", "On Tuesday at 7 pm."),
            (3, "List what members should bring.", "A pencil and 5 euros."),
        ),
    ),
    (
        "Flight 306 to Lisbon is delayed by 50 minutes because of fog. It was due to leave "
        "at 14:10 from gate B7.",
        (
            (1, "Where is the flight going?", "To Lisbon."),
            (2, "Why is the flight late?", "Because of fog."),
            (4, "When will the flight leave now?", "At 15:00."),
        ),
    ),
    (
        "Amelia Earhart flew alone across the Atlantic in May 1932. She took off from "
        "Newfoundland and landed in a field in Northern Ireland.",
        (
            (1, "Who made the flight?", "Amelia Earhart."),
            (2, "In which month and year was it?", "In May 1932."),
            (
                3,
                "Give the start and the end of the flight.",
                "From Newfoundland to Northern Ireland.",
            ),
        ),
    ),
    (
        "Lost: a grey parrot called Pico, near Elm Park on 4 June. He says 'Hello, "
        "captain.' Reward of 40 pounds. Ask for Mr Osei.",
        (
            (1, "What is the parrot's name?", "Pico."),
            (2, "How large is the reward?", "40 pounds."),
            (3, "By what habit could one recognise the bird?", "He says 'Hello, captain.'"),
        ),
    ),
    (
        "The Rosetta Stone was found in Egypt in 1799. It bears one decree in three "
        "scripts: hieroglyphic, Demotic and Greek. It is in the British Museum.",
        (
            (1, "In which year was the stone found?", "In 1799."),
            (2, "Where is the stone today?", "In the British Museum."),
            (3, "Name the three scripts.", "Hieroglyphic, Demotic and Greek."),
        ),
    ),
    (
        "Tara sold 12 jars of honey on Saturday and 9 on Sunday, at 6 dollars a jar. Rain "
        "kept people away on Sunday.",
        (
            (1, "What did Tara sell?", "Jars of honey."),
            (2, "Why were Sunday's sales lower?", "Rain kept people away."),
            (4, "How much did Tara earn in all?", "126 dollars, for 21 jars at 6 dollars each."),
        ),
    ),
    (
        "Dr Lin moved from Oslo to Porto in 2015 to study squid. Her brother Wei, a chef, "
        "followed two years later.",
        (
            (1, "What did Dr Lin go to study?", "Squid."),
            (2, "What is Wei's job?", "He is a chef."),
            (4, "In which year did Wei move?", "In 2017."),
        ),
    ),
    (
        "The match began at 3 pm. Vale scored in the 10th minute, Hart drew level before "
        "the break, and Vale won with a late penalty.",
        (
            (1, "Which team won?", "Vale."),
            (3, "How did Vale score the winning goal?", "From a late penalty."),
            (4, "What was the final score?", "Vale 2, Hart 1."),
        ),
    ),
    (
        "The flat has two bedrooms and a balcony. Rent is 900 euros a month; heating is "
        "extra. No pets. Free from 1 March.",
        (
            (1, "How many bedrooms are there?", "Two."),
            (2, "What isn't included in the rent?", "Heating."),
            (4, "What is the rent for a full year?", "10,800 euros."),
        ),
    ),
    (
        "Johannes Gutenberg printed his Bible in Mainz in about 1455. Some 180 copies were "
        "made; fewer than 50 survive.",
        (
            (1, "In which city was the Bible printed?", "In Mainz."),
            (2, "About how many copies were made?", "About 180."),
            (4, "Roughly what share has been lost?", "Nearly three quarters."),
        ),
    ),
    (
        "Mix 200 g of flour, 100 g of butter and 50 g of sugar. Chill for 30 minutes. Bake "
        "at 180 degrees for 15 minutes.",
        (
            (1, "How long should the dough be chilled?", "For 30 minutes."),
            (3, "List the ingredients by weight, heaviest first.", "Flour, butter, sugar."),
            (4, "How much flour is needed for three batches?", "600 g."),
        ),
    ),
    (
        "Bus 8 leaves Ashby at 8:05 and reaches Denton at 8:50. Bus 11 leaves at 8:15 and "
        "takes half an hour.",
        (
            (1, "When does bus 8 leave Ashby?", "At 8:05."),
            (3, "How long does bus 8 take?", "45 minutes."),
            (4, "Which bus reaches Denton first?", "Bus 11, at 8:45."),
        ),
    ),
    (
        "Ada Lovelace, the daughter of Lord Byron, was born in London in 1815. In 1843 she "
        "published notes on Babbage's engine.",
        (
            (1, "Who was Ada Lovelace's father?", "Lord Byron."),
            (2, "Where was Ada Lovelace born?", "In London."),
            (3, "What did she publish in 1843?", "Notes on Babbage's engine."),
        ),
    ),
    (
        "Meeting notes: Priya will book the room, Sam will ring the printer by Thursday, "
        "and Jo will check the budget. Next meeting: 12 May.",
        (
            (1, "Who will book the room?", "Priya."),
            (2, "By when must Sam ring the printer?", "By Thursday."),
            (
                3,
                "List each person and task.",
                "Priya: book the room. Sam: ring the printer. Jo: check the budget.",
            ),
        ),
    ),
    (
        "The shop opens at 9 and shuts at 6, but at 1 on Saturday. It is closed on Sunday "
        "and on public holidays.",
        (
            (2, "When does the shop shut on Saturday?", "At 1."),
            (3, "On which days of the week is the shop open?", "From Monday to Saturday."),
            (4, "For how many hours is the shop open on a normal Wednesday?", "Nine."),
        ),
    ),
    (
        "Roald Amundsen's party reached the South Pole on 14 December 1911. Robert Scott "
        "arrived on 17 January 1912.",
        (
            (1, "Who reached the South Pole first?", "Roald Amundsen's party."),
            (3, "Give the date on which Scott arrived.", "17 January 1912."),
            (4, "By how many days did Amundsen beat Scott?", "By 34 days."),
        ),
    ),
    (
        "Dear Ms Cole, your order 7741 (two lamps) will come on Friday. The third lamp is "
        "out of stock, so we have refunded 35 pounds.",
        (
            (1, "What is the order number?", "7741."),
            (2, "Why was money refunded?", "One lamp is out of stock."),
            (4, "How many lamps did Ms Cole order at first?", "Three."),
        ),
    ),
    (
        "The comet was seen in 1531, 1607 and 1682. Edmond Halley saw that it was one comet "
        "and said that it would return in 1758.",
        (
            (2, "Who explained the sightings?", "Edmond Halley."),
            (3, "List the three sightings.", "1531, 1607 and 1682."),
            (4, "About how often does the comet return?", "About every 76 years."),
        ),
    ),
    (
        "Nobody answered the door. Two letters lay on the mat, and the milk by the step had "
        "turned sour.",
        (
            (2, "What lay on the mat?", "Two letters."),
            (3, "What had happened to the milk?", "It had turned sour."),
            (4, "What can we infer about the house?", "Nobody had been at home for some days."),
        ),
    ),
    (
        "Lina put on her coat, took an umbrella from the stand and sighed at the window "
        "before leaving for work.",
        (
            (2, "What did Lina take from the stand?", "An umbrella."),
            (3, "Where was Lina going?", "To work."),
            (4, "What was the weather probably like?", "It was probably raining."),
        ),
    ),
    (
        "The lake froze in January. By the 20th the ice was 12 cm thick, and the council, "
        "which asks for 15 cm, kept the skaters off.",
        (
            (2, "How thick was the ice on the 20th?", "12 cm."),
            (3, "What thickness does the council ask for?", "15 cm."),
            (4, "How much thicker did the ice need to be?", "3 cm thicker."),
        ),
    ),
)
